"""The lab's jobs from Python: `run`, `find`, `get`. In a notebook `%ailab_job` is the same (`ailab_magic`).

    import ailab_jobs
    job = ailab_jobs.run("python train.py --epochs 100", gpus=1, memory="8g")
    for line in job.logs(follow=True):
        print(line)

Notebooks, terminals of JupyterLab and jobs find this module on their PYTHONPATH. It is one file, needs Python 3.8 and
nothing else. It asks the lab over a unix socket: from a workspace as whom the hub knows it by its token.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

ANSWER_SECONDS = 60.0
# Between two looks at a job that runs.
LOOK_SECONDS = 1.0
ENDED = ("done", "failed", "stopped")
# As the lab places what it refuses, and as what checks it begins what it says.
_PLACE = re.compile(r"^(?:body\.)?(?:wish\.)?(\w+)(?:\.[\w.\[\]-]+)?: (?:Value error, )?(.*)$", re.DOTALL)
_CHINESE = {
    "The lab does not answer.": "实验室没有响应。",
    "Start it: ailab up": "启动它：ailab up",
    "There is no lab here that could be asked.": "这里没有可以请求的实验室。",
    "Ask in a notebook or a terminal of JupyterLab, or type: ailab run": "请在 JupyterLab 里使用，或者输入：ailab run",
    "The lab does not know this workspace any more.": "实验室不再认识这个工作区。",
    "Stop it and start it again: File, Hub Control Panel.": "先停止再启动它：File 菜单，Hub Control Panel。",
    "Waited {seconds:g} s for job {id}; it goes on.": "等了作业 {id} {seconds:g} 秒；它仍在继续。",
    "Job {id} ended as {state}. {note}": "作业 {id} 以 {state} 结束。{note}",
    "A job takes no {option}.": "作业没有 {option} 这个选项。",
    "{option} needs a value.": "{option} 需要一个值。",
    "There is nothing to run.": "没有要运行的内容。",
    "The cell is too long for a job; put it into a file.": "这个单元格太长，不能作为作业；请放进文件里。",
    "What it may be: ailab run --help": "可以怎么写：ailab run --help",
}


def say(sentence: str, **values: Any) -> str:
    """A sentence in the lab's language."""
    chinese = os.environ.get("AILAB_LANGUAGE") == "zh"
    return (_CHINESE[sentence] if chinese else sentence).format(**values)


class JobsError(RuntimeError):
    """What the lab refused, or why it could not be asked: `message`, what to do (`remedy`), and `kind`, a word as in
    the errors of its API."""

    def __init__(self, message: str, remedy: str = "", kind: str = "failed") -> None:
        super().__init__(f"{message} {remedy}".strip())
        self.message = message
        self.remedy = remedy
        self.kind = kind

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the sentence, no traceback."""
        return [f"JobsError: {self}"]


class Door(Protocol):
    """Who answers: paths are of the lab's API of jobs, bodies and answers JSON."""

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any: ...

    def place(self, path: Path) -> str: ...


class Job:
    """A job as it was when it was last looked at; `info` has all of it, as `ailab jobs show --json`."""

    def __init__(self, door: Door, info: dict[str, Any]) -> None:
        self._door = door
        self.info = info

    @property
    def id(self) -> int:
        return int(self.info["id"])

    @property
    def name(self) -> str:
        return str(self.info["name"])

    @property
    def state(self) -> str:
        """`queued`, `starting`, `running`, `done`, `failed` or `stopped`, as it was at the last look."""
        return str(self.info["state"])

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    def __repr__(self) -> str:
        return f"Job {self.id} ({self.name}): {self.state}"

    def look(self) -> Job:
        """Look at it again."""
        self.info = self._door.call("GET", f"/jobs/{self.id}")
        return self

    def wait(self, timeout: float | None = None, check: bool = False) -> Job:
        """Wait until it has ended, in whatever way; the same job. Interrupting ends the waiting, not the job.

        `timeout` is in seconds. Raises TimeoutError when it takes longer, and with `check` `JobsError` where the job
        has not ended as `done`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.look().has_ended:
            left = LOOK_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                said = say("Waited {seconds:g} s for job {id}; it goes on.", seconds=timeout, id=self.id)
                raise TimeoutError(said)
            time.sleep(min(LOOK_SECONDS, left))
        if check and self.state != "done":
            note = self.info["note"]
            raise JobsError(say("Job {id} ended as {state}. {note}", id=self.id, state=self.state, note=note).strip())
        return self

    def logs(self, follow: bool = False) -> Iterator[str]:
        """The lines of its output that are kept; with `follow` also those that come, until it has ended. Of several
        workers each line has its worker's number before it."""
        count = len(self.look().info["members"])
        logs = [_Log(self._door, self.id, member) for member in range(count)]
        while True:
            over = self.look().has_ended or not follow
            for number, log in enumerate(logs):
                before = f"[{number}] " if count > 1 else ""
                for line in log.read(over):
                    yield before + line
            if over:
                return
            time.sleep(LOOK_SECONDS)

    def stop(self) -> Job:
        """Have it end, with its grace to save its state. Returns at once: `stop().wait()` waits."""
        self.info = self._door.call("POST", f"/jobs/{self.id}/stop", {})
        return self

    def rerun(self) -> Job:
        """Run again exactly what it has run: the new job."""
        made = self._door.call("POST", f"/jobs/{self.id}/rerun", {})
        return Job(self._door, self._door.call("GET", "/jobs/{}".format(made["jobs"][0])))


class _Log:
    """The output of one worker of a job, as far as it has been read."""

    def __init__(self, door: Door, job: int, member: int) -> None:
        self._door = door
        self._path = f"/jobs/{job}/log?member={member}&after="
        self._given = 0
        self._last = ""
        # What may be a part of a line is held back for one look.
        self._held: str | None = None

    def read(self, over: bool) -> Iterator[str]:
        """The lines that are new; `over`: no more will come."""
        while True:
            part = self._door.call("GET", f"{self._path}{max(self._given - 1, 0)}")
            lines = part["lines"]
            if self._given and lines:
                again = lines.pop(0)
                if again != self._last:  # a line that has grown
                    yield again[len(self._last) :] if again.startswith(self._last) else again
                    self._last = again
            elif self._given:  # the older half was taken away
                self._given = part["next"]
            if lines and not over and not part["more"] and lines[-1] != self._held:
                self._held = lines.pop()
            if lines:
                self._given, self._last = self._given + len(lines), lines[-1]
                yield from lines
            if not part["more"]:
                return


class Jobs:
    """The jobs of one lab."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def run(
        self,
        command: str | Sequence[str],
        *,
        name: str | None = None,
        cwd: str | None = None,
        workers: int | None = None,
        strategy: str | None = None,
        insecure_ports: bool | None = None,
        cpus: int | None = None,
        memory: str | int | None = None,
        gpus: int | None = None,
        gpu_fraction: float | None = None,
        priority: int | None = None,
        after: Sequence[Job | int | str] | None = None,
        retries: int | None = None,
        timeout: str | float | None = None,
        grace: str | float | None = None,
        resume: bool | None = None,
        env: dict[str, str] | None = None,
        at: str | float | None = None,
        seed: int | None = None,
        inputs: Sequence[str] | None = None,
    ) -> Job:
        """Queue a job, with the words of `ailab run --help` and of job.toml. It runs in `cwd`, else where this runs.

        `command` is a list of words, or one text that is split as a shell does. Raises `JobsError` for what cannot be.
        """
        wish = {key: value for key, value in locals().items() if key not in ("self", "command") and value is not None}
        return self.get(self._submit(command, wish)["jobs"][0])

    def run_array(self, command: str | Sequence[str], array: str, **options: Any) -> list[Job]:
        """Queue many jobs, numbered "1-20" by AILAB_ARRAY_INDEX; `options` are those of `run`."""
        made = self._submit(command, dict(options, array=array))
        return [self.get(job) for job in made["jobs"]]

    def schedule(self, command: str | Sequence[str], every: str | float, **options: Any) -> int:
        """Have it run again and again, first at `at`; the number of the schedule. `options` are those of `run`."""
        return int(self._submit(command, dict(options, every=every))["schedule"])

    def find(self, state: str = "", owner: str = "", name: str = "", limit: int = 50) -> list[Job]:
        """The newest jobs: those of a state ("queued,running" are two), of a user, with that in their name."""
        query = urlencode({"state": state, "owner": owner, "name": name, "limit": limit})
        return [Job(self._door, info) for info in self._door.call("GET", f"/jobs?{query}")["jobs"]]

    def get(self, job: int) -> Job:
        """The job of that number. Raises `JobsError` where there is none."""
        return Job(self._door, self._door.call("GET", f"/jobs/{int(job)}"))

    def _submit(self, command: str | Sequence[str], wish: dict[str, Any]) -> Any:
        words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
        folder = Path.cwd() / Path(str(wish.get("cwd") or "")).expanduser()
        asked = dict(wish, command=words, cwd=self._door.place(folder))
        if "after" in asked:
            asked["after"] = [str(one.id if isinstance(one, Job) else one) for one in asked["after"]]
        if "inputs" in asked:
            asked["inputs"] = [self._door.place(folder / str(path)) for path in asked["inputs"]]
        if "env" in asked:
            asked["env"] = {str(key): str(value) for key, value in asked["env"].items()}
        return self._door.call("POST", "/jobs", {"wish": asked})


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_SECONDS)
        self.sock.connect(self._path)


class _Daemon:
    """The API on the daemon's socket, which the lab's account alone can open: who asks says so."""

    prefix = "/api"

    def __init__(self, path: str, user: str) -> None:
        self._path = path
        self._told = {"owner": user, "actor": user}
        self._headers = {"Accept": "application/json", "Content-Type": "application/json"}

    def place(self, path: Path) -> str:
        """A path as the lab understands it."""
        return str(path)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        connection = _Connection(self._path)
        try:
            sent = None if body is None else json.dumps(dict(self._told, **body))
            connection.request(method, self.prefix + path, sent, self._headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            raise JobsError(say("The lab does not answer."), say("Start it: ailab up"), "not-running") from None
        finally:
            connection.close()
        if answer.status >= 400:
            raise _refusal(answer.status, data)
        return json.loads(data) if data else None


class _Portal(_Daemon):
    """The API on the portal's socket: who asks is whom the hub knows by the token."""

    prefix = "/services/ailab/api"

    def __init__(self, path: str, token: str) -> None:
        super().__init__(path, "")
        self._told = {}
        self._headers["Authorization"] = f"token {token}"

    def place(self, path: Path) -> str:
        """The lab's folder may be elsewhere there: what is in it is told from there."""
        lab = os.environ.get("AILAB_LAB", "")
        return os.path.relpath(path, lab) if lab and Path(lab) in (path, *path.parents) else str(path)


def _refusal(status: int, data: bytes) -> JobsError:
    if status == 401:
        message = say("The lab does not know this workspace any more.")
        return JobsError(message, say("Stop it and start it again: File, Hub Control Panel."), "not-logged-in")
    try:
        error = json.loads(data)["error"]
        message, remedy, kind = str(error["message"]), str(error.get("remedy") or ""), str(error["kind"])
    except (ValueError, KeyError, TypeError):
        return JobsError("{} (HTTP {})".format(say("The lab does not answer."), status))
    return JobsError(as_asked(message) if kind == "usage" else message, remedy, kind)


def as_asked(message: str) -> str:
    """A refusal of the lab with the option's name alone before it."""
    return _PLACE.sub(r"\1: \2", message)


def lab() -> Jobs:
    """The jobs of the lab that this program runs in. Raises `JobsError` where it runs in none that could be asked."""
    token, portal = os.environ.get("JUPYTERHUB_API_TOKEN"), os.environ.get("AILAB_PORTAL")
    if token and portal:
        return Jobs(_Portal(portal, token))
    daemon, user = os.environ.get("AILAB_DAEMON"), os.environ.get("AILAB_USER")
    if daemon and user:
        return Jobs(_Daemon(daemon, user))
    raise JobsError(
        say("There is no lab here that could be asked."),
        say("Ask in a notebook or a terminal of JupyterLab, or type: ailab run"),
        "not-found",
    )


def run(command: str | Sequence[str], **options: Any) -> Job:
    """Queue a job of this lab: see `Jobs.run`, whose words these are."""
    return lab().run(command, **options)


def run_array(command: str | Sequence[str], array: str, **options: Any) -> list[Job]:
    """See `Jobs.run_array`."""
    return lab().run_array(command, array, **options)


def schedule(command: str | Sequence[str], every: str | float, **options: Any) -> int:
    """See `Jobs.schedule`."""
    return lab().schedule(command, every, **options)


def find(state: str = "", owner: str = "", name: str = "", limit: int = 50) -> list[Job]:
    """See `Jobs.find`."""
    return lab().find(state, owner, name, limit)


def get(job: int) -> Job:
    """See `Jobs.get`."""
    return lab().get(job)
