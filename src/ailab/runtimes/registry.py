"""The runtimes there are, and which kind of task runs where: explicit tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ailab.runtimes.base import Runtime, TaskKind
from ailab.runtimes.docker import DockerRuntime
from ailab.runtimes.process import ProcessRuntime
from ailab.runtimes.routed import RoutedRuntime

# What lab.toml calls a runtime is where people's tasks run. The lab's own services and chores are of the machine: they
# hold the web port, the secrets and the sockets.
_OF_THE_MACHINE = (TaskKind.service, TaskKind.extra, TaskKind.chore)
_PLACES: dict[str, Mapping[TaskKind, str]] = {
    ProcessRuntime.name: dict.fromkeys(TaskKind, ProcessRuntime.name),
    DockerRuntime.name: dict.fromkeys(TaskKind, DockerRuntime.name)
    | dict.fromkeys(_OF_THE_MACHINE, ProcessRuntime.name),
}


def uses_engine(name: str) -> bool:
    """Whether the runtime that lab.toml names needs a container engine."""
    return DockerRuntime.name in _PLACES[name].values()


def make_runtime(name: str, tasks_folder: Path, named_by: Path | None = None) -> Runtime:
    """The runtime that lab.toml names; `tasks_folder` is where it may keep state, `named_by` where that was when what
    runs was started, if the lab was moved since."""
    parts: list[Runtime] = [ProcessRuntime(tasks_folder), DockerRuntime(tasks_folder, named_by)]
    return RoutedRuntime(tasks_folder, {part.name: part for part in parts}, _PLACES[name])
