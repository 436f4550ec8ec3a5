"""Several runtimes as one: each kind of task has its place, and a task that is there stays where it was started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ailab.command import Finished
from ailab.errors import AilabError
from ailab.paths import LabPaths
from ailab.runtimes import task_files
from ailab.runtimes.base import Limits, Runtime, Seen, Site, TaskKind, TaskSpec, TaskState, Usage
from ailab.runtimes.process import ProcessRuntime
from ailab.runtimes.terminal import Terminal


class RoutedRuntime(Runtime):
    """The parts keep their state side by side in one folder. Which of them has a task is written there, so that it is
    found, and stopped, after lab.toml has come to name another runtime."""

    name: ClassVar[str] = "routed"

    def __init__(self, tasks: Path, parts: Mapping[str, Runtime], places: Mapping[TaskKind, str]) -> None:
        self._tasks = tasks
        self._parts = parts
        self._places = places

    def _place(self, kind: str) -> Runtime:
        return self._parts[self._places[TaskKind(kind)]]

    def _having(self, task_id: str) -> Runtime:
        kept = task_files.read_kept(task_files.folder_of(self._tasks, task_id)) or {}
        return self._parts[kept.get("runtime", ProcessRuntime.name)]

    def site(self, kind: str, lab: LabPaths) -> Site:
        return self._place(kind).site(kind, lab)

    def no_private_network(self, kind: str) -> AilabError | None:
        return self._place(kind).no_private_network(kind)

    def start(self, spec: TaskSpec) -> Seen:
        having = self._having(spec.id)
        ended = having.poll(spec.id).state in (TaskState.absent, TaskState.exited)
        return (self._place(spec.kind) if ended else having).start(spec)

    def poll(self, task_id: str) -> Seen:
        return self._having(task_id).poll(task_id)

    def spec(self, task_id: str) -> TaskSpec | None:
        return self._having(task_id).spec(task_id)

    def stop(self, task_id: str, *, grace: float | None = None) -> Seen:
        return self._having(task_id).stop(task_id, grace=grace)

    def logs(self, task_id: str, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        return self._having(task_id).logs(task_id, follow=follow, tail=tail)

    def exec(self, task_id: str, argv: Sequence[str], *, timeout: float) -> Finished:
        return self._having(task_id).exec(task_id, argv, timeout=timeout)

    def terminal(self, task_id: str, argv: Sequence[str]) -> Terminal:
        return self._having(task_id).terminal(task_id, argv)

    def connect(self, task_id: str, port: int | str) -> str:
        return self._having(task_id).connect(task_id, port)

    def usage(self, task_id: str) -> Usage:
        return self._having(task_id).usage(task_id)

    def limits(self, task_id: str) -> Limits:
        return self._having(task_id).limits(task_id)

    def fault(self, task_id: str) -> str | None:
        return self._having(task_id).fault(task_id)

    def silence(self) -> str | None:
        in_use = dict.fromkeys(self._places.values())
        return next(filter(None, (self._parts[name].silence() for name in in_use)), None)

    def tasks(self) -> list[str]:
        return task_files.ids(self._tasks)

    def remove(self, task_id: str) -> None:
        self._having(task_id).remove(task_id)
