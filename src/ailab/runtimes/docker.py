"""The docker runtime: each task a container of an engine, found again by its labels; what the engine forgets in files.

A task's folder has `spec.json`, `child.json` (who runs), `exit.json` (how it ended) and the output of ended attempts. A
container stays until its end has been written down: the engine's store holds nothing but what runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ailab import engine, engine_gpus, files
from ailab.command import Finished
from ailab.errors import AilabError, Conflict, NotFound
from ailab.i18n import _
from ailab.paths import IMAGE_HOME, IMAGE_LAB, LabPaths, MachinePaths
from ailab.runtimes import cgroup, container, container_end, container_log, kept_log, processes, task_files
from ailab.runtimes.base import Capability, Limits, Runtime, Seen, Site, TaskSpec, TaskState, Usage
from ailab.runtimes.container_exec import run_in
from ailab.runtimes.container_network import network_of, remove_network
from ailab.runtimes.reasons import GPUS_LOST
from ailab.runtimes.terminal import ContainerTerminal, Terminal
from ailab.waiting import TimedOut, wait_for

if TYPE_CHECKING:
    from docker import DockerClient

KILL_SECONDS = 30.0
_LOOK_SECONDS = 5.0
_ALIVE = ("running", "paused", "restarting")


class DockerRuntime(Runtime):
    """A task lives as long as its container's first process, which is looked up without asking the engine."""

    name: ClassVar[str] = "docker"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.limits_tasks, Capability.images})

    def __init__(self, folder: Path, named_by: Path | None = None) -> None:
        self._folder = folder
        # What runs was named when the lab was elsewhere.
        self._is_moved = named_by is not None
        self._whose = hashlib.sha256(str((named_by or folder).resolve()).encode()).hexdigest()[:12]
        self._clients: dict[float, DockerClient] = {}
        self._groups: dict[tuple[int, int | None], cgroup.Group | None] = {}

    def _client(self, patience: float = 60.0) -> DockerClient:
        """An engine that answered once. Raises `engine.EngineError`."""
        if patience not in self._clients:
            self._clients[patience] = engine.connect(patience)
        return self._clients[patience]

    def _of(self, task_id: str) -> Path:
        return task_files.folder_of(self._folder, task_id)

    def _name(self, task_id: str) -> str:
        return f"ailab-{self._whose}-{task_id}"

    def _labels(self, task_id: str) -> dict[str, str]:
        return {container.TASK_LABEL: task_id, container.WHOSE_LABEL: self._whose}

    def site(self, kind: str, lab: LabPaths) -> Site:
        python = MachinePaths(IMAGE_HOME).control / "current/bin/python"
        # What listens on a container's loopback is reached by nobody; on its network there is nobody else.
        return Site(str(python), LabPaths(IMAGE_LAB), "0.0.0.0", "127.0.0.1", "{task}", self.capabilities)  # noqa: S104

    def no_private_network(self, kind: str) -> AilabError | None:
        return None

    def start(self, spec: TaskSpec) -> Seen:
        folder = self._of(spec.id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with files.locked(folder / "starting"):
            before = _known(self._look(spec.id, starting=False))
            if before.state == TaskState.running or task_files.has_had(before, spec):
                return before
            client = self._client()
            with engine.told():
                self._clear(client, spec.id)
            published = (task_files.read_kept(folder) or {}).get("published", {})
            for name in ("child.json", "exit.json", "stopping", "unanswered"):
                (folder / name).unlink(missing_ok=True)
            attempt = spec.attempt or before.attempt + 1
            kept = {"spec": spec.to_json(), "attempt": attempt, "runtime": self.name, "published": published}
            kept["before"] = before.reason
            task_files.write_kept(folder, kept)
            try:
                self._run(client, folder, kept, spec)
            except _Refused as refused:
                return task_files.write_end(folder, container_end.never_ran(kept, str(refused)))
            return self._look(spec.id, starting=False)

    def _run(self, client: DockerClient, folder: Path, kept: dict[str, Any], spec: TaskSpec) -> None:
        """Make and start the container. Raises `_Refused` with the reason when the engine will not."""
        from docker.errors import APIError

        name, labels = self._name(spec.id), self._labels(spec.id)
        labels |= {"org.ailab.attempt": str(kept["attempt"]), container.GANG_LABEL: spec.gang}
        with engine.told():
            wishes: list[dict[str, int]] = [kept["published"], {}]
            for published in wishes:
                try:
                    network = network_of(client, spec, name, labels)
                    made = container.make(client, spec, name=name, labels=labels, network=network, published=published)
                    client.api.start(made)
                    break
                except APIError as error:
                    said = str(error.explanation or error)
                    if "no space left" in said.lower():
                        raise
                    self._clear(client, spec.id)
                    if not published or ("already allocated" not in said and "already in use" not in said):
                        raise _Refused(said) from None
            seen = client.api.inspect_container(made)
        self._adopt(folder, kept, seen)

    def _adopt(self, folder: Path, kept: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
        """Write down, and return, who runs; and which ports the engine has given it."""
        ports = (seen["NetworkSettings"].get("Ports") or {}).items()
        published = {name.partition("/")[0]: int(places[0]["HostPort"]) for name, places in ports if places}
        child = {
            "id": seen["Id"],
            "pid": seen["State"]["Pid"],
            "start_time": processes.start_time(seen["State"]["Pid"]),
            "started_at": container_end.moment(seen["State"]["StartedAt"]),
            "shm_bytes": seen["HostConfig"]["ShmSize"],
            "attempt": kept["attempt"],
            "place": task_files.identity(folder),
        }
        with files.locked(folder / "noting"):
            if published and published != kept.get("published"):
                task_files.write_kept(folder, kept | {"published": published})
            files.replace(folder / "child.json", json.dumps(child), mode=0o600)
        return child

    def poll(self, task_id: str) -> Seen:
        folder = self._of(task_id)
        starting = not (folder / "stopping").exists() and files.is_locked(folder / "starting")
        return self._look(task_id, starting=starting)

    def _look(self, task_id: str, *, starting: bool) -> Seen:
        """How the task is; `starting` says whether somebody else starts it at this moment, who then writes down what
        becomes of it."""
        folder = self._of(task_id)
        kept = task_files.read_kept(folder)
        if kept is None:
            return task_files.unknown(folder, "spec.json") or Seen(TaskState.absent)
        attempt = kept["attempt"]
        if (ended := task_files.read_end(folder, attempt)) is not None:
            return ended
        if (broken := task_files.unknown(folder, "exit.json")) is not None:
            return broken
        child = self._child(folder, attempt)
        if child is not None:
            return self._running(child, kept)
        if starting:
            return Seen(TaskState.starting, attempt=attempt)
        try:
            seen = self._inspect(task_id, attempt)
        except engine.EngineError as silent:
            (folder / "unanswered").touch()
            return Seen(TaskState.unknown, reason=silent.message, attempt=attempt)
        if seen is not None and seen["State"]["Status"] in _ALIVE:
            return self._running(self._adopt(folder, kept, seen), kept)
        return self._bury(folder, kept, seen)

    def _child(self, folder: Path, attempt: int) -> dict[str, Any] | None:
        """Who runs, if the process that was started is there still."""
        child = files.read_json(folder / "child.json")
        if child is None or child.get("attempt") != attempt or child.get("start_time") is None:
            return None
        own = self._is_moved or task_files.is_own(folder, child)
        return child if own and processes.start_time(child["pid"]) == child["start_time"] else None

    def _running(self, child: dict[str, Any], kept: dict[str, Any]) -> Seen:
        pid, group = child["pid"], self._group(child)
        return Seen(
            TaskState.running,
            pid,
            processes.account_of(pid),
            child["started_at"],
            attempt=child["attempt"],
            kills=cgroup.memory_kills(group) if group else 0,
            before=kept.get("before"),
        )

    def _group(self, child: dict[str, Any]) -> cgroup.Group | None:
        """The control group of a process that was there a moment ago."""
        process = (child["pid"], child["start_time"])
        if process not in self._groups:
            self._groups = {one: group for one, group in self._groups.items() if processes.start_time(one[0]) == one[1]}
            self._groups[process] = cgroup.group_of(child["pid"])
        return self._groups[process]

    def _inspect(self, task_id: str, attempt: int) -> dict[str, Any] | None:
        """The container of this attempt; None where there is none. Raises `engine.EngineError`."""
        from docker.errors import NotFound as NoContainer

        with engine.told():
            try:
                seen: dict[str, Any] = self._client(_LOOK_SECONDS).api.inspect_container(self._name(task_id))
            except NoContainer:
                return None
        return seen if seen["Config"]["Labels"].get("org.ailab.attempt") == str(attempt) else None

    def _bury(self, folder: Path, kept: dict[str, Any], seen: dict[str, Any] | None) -> Seen:
        """Write down the end of an attempt, keep its output, and remove its container."""
        with files.locked(folder / "noting"):
            if (ended := task_files.read_end(folder, kept["attempt"])) is not None:
                return ended
            if seen is not None:
                self._keep_output(folder, kept, seen["Id"])
            began = engine.began(self._client(_LOOK_SECONDS)) if seen is not None else None
            ended = task_files.write_end(folder, container_end.of(folder, kept, seen, began))
        self._clear_if_read(folder, kept["attempt"])
        return ended

    def _clear_if_read(self, folder: Path, attempt: int) -> None:
        """Remove the container of an attempt whose end has been written down. Who follows its output reads the rest of
        it from the engine, and does this then."""
        if task_files.read_end(folder, attempt) is None:
            return
        with contextlib.suppress(engine.EngineError), files.locked_if_free(folder / "following") as unread:
            if unread:
                with engine.told():
                    self._clear(self._client(), folder.name)

    def _keep_output(self, folder: Path, kept: dict[str, Any], container_id: str) -> None:
        limit = TaskSpec.from_json(kept["spec"]).log_bytes
        with contextlib.suppress(engine.EngineError), engine.told():
            kept_log.append(folder, self._output(container_id), limit)

    def _clear(self, client: DockerClient, task_id: str) -> None:
        """Remove what the engine has of a task: its containers, running or not, and their networks."""
        from docker.errors import APIError

        labels = self._labels(task_id)
        wanted = {"label": [f"{name}={value}" for name, value in labels.items()]}
        for one in client.api.containers(all=True, filters=wanted):
            with contextlib.suppress(APIError):  # another removes it at this moment
                client.api.remove_container(one["Id"], v=True, force=True)
        known = self.spec(task_id)
        remove_network(client, labels, known.gang if known is not None else "")

    def spec(self, task_id: str) -> TaskSpec | None:
        return task_files.read_spec(self._of(task_id))

    def stop(self, task_id: str, *, grace: float | None = None) -> Seen:
        if self.poll(task_id).state in (TaskState.absent, TaskState.exited):
            return self.poll(task_id)
        folder, spec = self._of(task_id), self.spec(task_id)
        assert spec is not None, "what runs has been started"
        with files.locked(folder / "starting"):
            seen = _known(self._look(task_id, starting=False))
            if seen.state != TaskState.running:
                return seen
            (folder / "stopping").touch()
            patience = spec.grace if grace is None else grace
            for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, KILL_SECONDS)):
                self._signal(task_id, number)
                try:
                    return wait_for(
                        lambda: _if_ended(self._look(task_id, starting=False)),
                        timeout=seconds,
                        what=_("{task} to end").format(task=task_id),
                        first=0.01,
                    )
                except TimedOut:
                    if number == signal.SIGKILL:
                        raise
        raise AssertionError("unreachable")

    def _signal(self, task_id: str, number: signal.Signals) -> None:
        from docker.errors import APIError

        with engine.told():
            try:
                self._client().api.kill(self._name(task_id), number.name)
            except APIError as error:
                if error.response.status_code not in (404, 409):  # gone, or not running any more
                    raise

    def logs(self, task_id: str, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        folder = self._of(task_id)
        kept = task_files.read_kept(folder)
        if kept is None:
            return
        attempt = kept["attempt"]
        try:
            with files.locked(folder / "following", shared=True), engine.told():  # the container stays meanwhile
                before, running = self._kept_and_running(folder, attempt)
                if running is None or not follow:
                    now = self._output(running["Id"]) if running is not None else iter(())
                    yield from deque(chain(before, now), maxlen=tail)
                    return
                if tail is None:
                    yield from before
                yield from self._output(running["Id"], follow=True, tail=tail)
        finally:
            self._clear_if_read(folder, attempt)

    def _kept_and_running(self, folder: Path, attempt: int) -> tuple[list[str], dict[str, Any] | None]:
        """The lines of attempts that have ended, and the container of the one that has not. Who writes down an end
        meanwhile (`_bury`) would put this attempt's output in both."""
        with files.locked(folder / "noting", shared=True):
            running = None if task_files.read_end(folder, attempt) else self._inspect(folder.name, attempt)
            return list(kept_log.lines(folder)), running

    def _output(self, container_id: str, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        return container_log.output(self._client(), container_id, follow=follow, tail=tail)

    def exec(self, task_id: str, argv: Sequence[str], *, timeout: float) -> Finished:
        self._must_run(task_id)
        return run_in(self._client(), self._name(task_id), argv, timeout)

    def terminal(self, task_id: str, argv: Sequence[str]) -> Terminal:
        self._must_run(task_id)
        return ContainerTerminal(self._client(), self._name(task_id), argv)

    def connect(self, task_id: str, port: int | str) -> str:
        self._must_run(task_id)
        kept = task_files.read_kept(self._of(task_id)) or {}
        published = kept.get("published", {}).get(str(port))
        place = f"127.0.0.1:{published}" if published is not None else None
        if isinstance(port, str):
            place = container.outside(TaskSpec.from_json(kept["spec"]).mounts, port)
        if place is None:
            raise NotFound(_("{task} has no port {port} that is published.").format(task=task_id, port=port))
        return place

    def usage(self, task_id: str) -> Usage:
        group, child = self._group_of(task_id)
        if group is None:
            return Usage()
        return Usage(
            round(cgroup.cpu_seconds(group), 2),
            cgroup.memory_bytes(group),
            len([pid for pid in cgroup.processes(group) if pid != child["pid"]]),
            cgroup.memory_peak_bytes(group),
        )

    def limits(self, task_id: str) -> Limits:
        group, child = self._group_of(task_id)
        return cgroup.limits(group, child["shm_bytes"]) if group else Limits()

    def _group_of(self, task_id: str) -> tuple[cgroup.Group | None, dict[str, Any]]:
        folder = self._of(task_id)
        kept = task_files.read_kept(folder)
        child = self._child(folder, kept["attempt"]) if kept else None
        return (self._group(child), child) if child else (None, {})

    def _must_run(self, task_id: str) -> None:
        if self.poll(task_id).state != TaskState.running:
            raise NotFound(_("{task} does not run.").format(task=task_id))

    def fault(self, task_id: str) -> str | None:
        spec = self.spec(task_id)
        if spec is None or not spec.gpus or self.poll(task_id).state != TaskState.running:
            return None
        try:
            lost = engine_gpus.has_lost_devices(self._client(_LOOK_SECONDS), self._name(task_id))
        except engine.EngineError:
            return None
        return GPUS_LOST if lost else None

    def silence(self) -> str | None:
        return engine.silence(_LOOK_SECONDS)

    def tasks(self) -> list[str]:
        return task_files.ids(self._folder)

    def remove(self, task_id: str) -> None:
        if self.poll(task_id).state not in (TaskState.absent, TaskState.exited):
            raise Conflict(_("{task} still runs.").format(task=task_id), remedy=_("Stop it first."))
        with contextlib.suppress(engine.EngineError), engine.told():
            self._clear(self._client(), task_id)
        shutil.rmtree(self._of(task_id), ignore_errors=True)


class _Refused(Exception):
    """The engine will not run a container, for a reason that lies in what was asked for."""


def _known(seen: Seen) -> Seen:
    """Raises `engine.EngineError` for a task of which nothing can be said: it can be neither started nor stopped."""
    if seen.state == TaskState.unknown:
        raise engine.EngineError(seen.reason or "", remedy=_("See how it is: docker info"))
    return seen


def _if_ended(seen: Seen) -> Seen | None:
    return seen if seen.state in (TaskState.exited, TaskState.absent) else None
