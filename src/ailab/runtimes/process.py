"""The process runtime: each task a process on this machine under its shim, all state in files."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, ClassVar

import psutil

from ailab import command, files
from ailab.errors import Conflict, NotFound, UsageError
from ailab.events import now
from ailab.i18n import _
from ailab.runtimes import processes
from ailab.runtimes.base import Capability, Runtime, Seen, TaskSpec, TaskState, Usage
from ailab.waiting import wait_for

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SHIM = Path(__file__).with_name("shim.py")
START_SECONDS = 10.0
KILL_SECONDS = 10.0


class ProcessRuntime(Runtime):
    """State is files in a folder per task; whether a task lives is whether its shim holds the folder's lock."""

    name: ClassVar[str] = "process"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.limits_processes})

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shims: list[subprocess.Popen[bytes]] = []

    def _of(self, task_id: str) -> Path:
        if not _ID.fullmatch(task_id):
            raise UsageError(_("{id} will not do as a task's id.").format(id=repr(task_id)))
        return self._folder / task_id

    def start(self, spec: TaskSpec) -> Seen:
        folder = self._of(spec.id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with files.locked(folder / "starting"):
            seen = self.poll(spec.id)
            if seen.state == TaskState.running:
                return seen
            self._end_marked(folder)
            for name in ("child.json", "exit.json", "grace"):
                (folder / name).unlink(missing_ok=True)
            kept = {"spec": spec.to_json(), "attempt": seen.attempt + 1, "token": f"{spec.id}-{secrets.token_hex(8)}"}
            kept["boot"] = _boot()
            files.replace(folder / "spec.json", json.dumps(kept), mode=0o600)
            # Looking at those that have ended lets the system forget them.
            self._shims = [started for started in self._shims if started.poll() is None]
            shim = command.start_detached(
                [sys.executable, "-I", "-S", _SHIM, folder], log=folder / "shim.log", env={"PATH": os.defpath}
            )
            self._shims.append(shim)
            wait_for(
                lambda: (folder / "child.json").exists() or (folder / "exit.json").exists() or shim.poll() is not None,
                timeout=START_SECONDS,
                what=_("the shim of {task}").format(task=spec.id),
                first=0.005,
            )
            return self.poll(spec.id)

    def poll(self, task_id: str) -> Seen:
        folder = self._of(task_id)
        kept = files.read_json(folder / "spec.json")
        if kept is None:
            return Seen(TaskState.absent)
        # The lock is looked at before the files: a task that ends in between is then seen as ended.
        alive = files.is_locked(folder / "lock")
        attempt = kept["attempt"]
        end = files.read_json(folder / "exit.json")
        if end is not None and end["attempt"] == attempt:
            return Seen(TaskState.exited, **end)
        child = files.read_json(folder / "child.json")
        if child is None or child["attempt"] != attempt:
            if alive:
                return Seen(TaskState.starting, attempt=attempt)
            return Seen(TaskState.exited, reason=self._why_no_shim(folder), exit_status=126, attempt=attempt)
        if alive:
            pid = child["pid"]
            account = processes.account_of(pid)
            return Seen(TaskState.running, pid, account, child["started_at"], attempt=attempt)
        return self._bury(folder, kept, child)

    def spec(self, task_id: str) -> TaskSpec | None:
        kept = files.read_json(self._of(task_id) / "spec.json")
        return None if kept is None else TaskSpec.from_json(kept["spec"])

    def _why_no_shim(self, folder: Path) -> str:
        try:
            lines = (folder / "shim.log").read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return f"cannot-start: {lines[-1] if lines else 'the shim did not start'}"

    def _bury(self, folder: Path, kept: dict[str, Any], child: dict[str, Any]) -> Seen:
        """Write down the end of a task whose shim is gone without having done so, once nothing of it is left."""
        rebooted = kept.get("boot") != _boot()
        if not rebooted:
            self._end_marked(folder)
        seen = Seen(
            TaskState.exited,
            started_at=child["started_at"],
            ended_at=now(),
            exit_status=128 + signal.SIGKILL,
            reason="lost" if rebooted else "shim-killed",
            attempt=kept["attempt"],
        )
        end = {key: value for key, value in seen.to_json().items() if key not in ("state", "pid", "account")}
        with contextlib.suppress(OSError):  # a full disk: the next poll comes to the same end
            files.replace(folder / "exit.json", json.dumps(end), mode=0o600)
        return seen

    def _end_marked(self, folder: Path) -> None:
        """KILL what carries the mark of the last attempt: its shim is gone, so nobody else will."""
        kept = files.read_json(folder / "spec.json")
        if kept is None:
            return

        def none_left() -> bool:
            left = list(processes.marked(kept["token"]))
            processes.signal_all(left, signal.SIGKILL)
            return not left

        wait_for(none_left, timeout=KILL_SECONDS, what=_("the processes of {task} to end").format(task=folder.name))

    def stop(self, task_id: str, *, grace: float | None = None) -> Seen:
        seen = self.poll(task_id)
        if seen.state not in (TaskState.running, TaskState.starting):
            return seen
        folder, spec = self._of(task_id), self.spec(task_id)
        assert spec is not None, "what runs has been started"
        if grace is not None:
            files.replace(folder / "grace", str(grace), mode=0o600)
        shim = files.holder(folder / "lock")
        if shim is not None:
            processes.signal_all([shim], signal.SIGTERM)
        patience = (spec.grace if grace is None else grace) + KILL_SECONDS
        what = _("{task} to end").format(task=task_id)
        wait_for(lambda: not files.is_locked(folder / "lock"), timeout=patience, what=what, first=0.01)
        return self.poll(task_id)

    def logs(self, task_id: str, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        folder = self._of(task_id)
        if not follow:
            yield from deque(self._lines(folder), maxlen=tail)
            return
        yield from self._follow(folder, task_id, tail)

    def _lines(self, folder: Path) -> Iterator[str]:
        for name in ("log.1", "log"):
            try:
                with (folder / name).open(errors="replace") as source:
                    yield from (line.rstrip("\n") for line in source)
            except FileNotFoundError:
                continue

    def _follow(self, folder: Path, task_id: str, tail: int | None) -> Iterator[str]:
        """Lines as they come. A rotated log is read to its end before the new one is opened."""
        wait_for(
            lambda: (folder / "log").exists(), timeout=START_SECONDS, what=_("output of {task}").format(task=task_id)
        )
        source = (folder / "log").open(errors="replace")
        try:
            # One reading of all that there is: a line that is half-written now is whole later, and none falls between.
            *before, rest = (_older(folder, source) + source.read()).split("\n")
            yield from deque(before, maxlen=tail)
            while True:
                ended = self.poll(task_id).state not in (TaskState.running, TaskState.starting)
                moved = _inode(folder / "log") != os.fstat(source.fileno()).st_ino
                rest += source.read()
                *lines, rest = rest.split("\n")
                yield from lines
                if moved:
                    source.close()
                    source = (folder / "log").open(errors="replace")
                elif ended:
                    break
                elif not lines:
                    wait_for(
                        partial(self._moved_on, folder, source, task_id),
                        timeout=365 * 86400,
                        what=_("output of {task}").format(task=task_id),
                    )
            if rest:
                yield rest
        finally:
            source.close()

    def _moved_on(self, folder: Path, source: Any, task_id: str) -> bool:
        grown = os.fstat(source.fileno()).st_size > source.tell()
        moved = _inode(folder / "log") != os.fstat(source.fileno()).st_ino
        return grown or moved or self.poll(task_id).state not in (TaskState.running, TaskState.starting)

    def _running(self, task_id: str) -> TaskSpec:
        if self.poll(task_id).state != TaskState.running:
            raise NotFound(_("{task} does not run.").format(task=task_id), remedy="ailab status")
        spec = self.spec(task_id)
        assert spec is not None, "what runs has been started"
        return spec

    def exec(self, task_id: str, argv: Sequence[str], *, timeout: float) -> command.Finished:
        spec = self._running(task_id)
        return command.run(argv, timeout=timeout, env=spec.environment, cwd=Path(spec.cwd), check=False)

    def connect(self, task_id: str, port: int | str) -> str:
        self._running(task_id)
        return port if isinstance(port, str) else f"127.0.0.1:{port}"

    def usage(self, task_id: str) -> Usage:
        shim = files.holder(self._of(task_id) / "lock")
        if shim is None:
            return Usage()
        cpu, memory, count = 0.0, 0, 0
        try:
            of_task = psutil.Process(shim).children(recursive=True)
        except psutil.Error:
            return Usage()
        for process in of_task:
            try:
                times = process.cpu_times()
                cpu += times.user + times.system
                memory += _proportional_memory(process.pid)
                count += 1
            except (psutil.Error, OSError):
                continue
        return Usage(round(cpu, 2), memory, count)

    def tasks(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        return sorted(folder.name for folder in self._folder.iterdir() if (folder / "spec.json").exists())

    def remove(self, task_id: str) -> None:
        if self.poll(task_id).state in (TaskState.running, TaskState.starting):
            raise Conflict(_("{task} still runs.").format(task=task_id), remedy=_("Stop it first."))
        shutil.rmtree(self._of(task_id), ignore_errors=True)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _older(folder: Path, log: IO[str]) -> str:
    """The log before `log`; nothing where that is `log` itself, rotated since it was opened."""
    try:
        with (folder / "log.1").open(errors="replace") as older:
            return "" if os.path.sameopenfile(older.fileno(), log.fileno()) else older.read()
    except FileNotFoundError:
        return ""


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _proportional_memory(pid: int) -> int:
    """PSS in bytes (proc(5), smaps_rollup): a page that n processes share counts 1/n for each."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
