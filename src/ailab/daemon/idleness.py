"""For how long nobody has worked in a workspace, as far as can be known: its server, its CPUs, its GPUs are asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ailab.access import activity
from ailab.access.workspace_client import WorkspaceServer
from ailab.daemon.supervisor import Task
from ailab.errors import AilabError
from ailab.resources.gpu_load import gpu_loads
from ailab.runtimes.base import Runtime, TaskKind

# An open workspace in which nothing runs takes a hundredth or two of a CPU; a program that computes, most of one.
IDLE_CPUS = 0.1
# Percent of the time in which a GPU computes.
IDLE_GPU = 5


@dataclass(frozen=True)
class _Measured:
    """CPU seconds that an attempt of a task had used at a moment."""

    attempt: int
    at: float
    cpu_seconds: float


class Idleness:
    """What has used CPU since the look before is at work, so the first look at an attempt tells nothing yet."""

    def __init__(self, runtime: Runtime, clock: Callable[[], float]) -> None:
        self._runtime = runtime
        self._clock = clock
        self._measured: dict[str, _Measured] = {}

    def seconds(self, task: Task) -> float:
        """0 where somebody works, something computes, or nothing is known; infinite where nothing is open. Of other
        tasks than workspaces we know no moment at which they are not at work. A look may take seconds."""
        now = _Measured(task.seen.attempt, self._clock(), self._runtime.usage(task.spec.id).cpu_seconds)
        before, self._measured[task.spec.id] = self._measured.get(task.spec.id), now
        if task.spec.kind != TaskKind.workspace or before is None or before.attempt != now.attempt:
            return 0.0
        if now.cpu_seconds - before.cpu_seconds > IDLE_CPUS * (now.at - before.at):
            return 0.0
        if any(load.percent > IDLE_GPU for load in gpu_loads() if load.id in (task.spec.gpus or ())):
            return 0.0
        try:
            return activity.idle_seconds(WorkspaceServer.of(self._runtime, task.owner))
        except AilabError:
            return 0.0
