"""Tasks that run but have lost something, as their GPUs: found, told, and started anew when nothing runs in them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from ailab.access import activity
from ailab.daemon.supervisor import IDLE_SECONDS, Supervisor, Task
from ailab.errors import AilabError
from ailab.paths import LabPaths
from ailab.runtimes.base import Runtime, TaskKind, TaskState
from ailab.waiting import begin

LOOK_SECONDS = 60.0
# An open workspace in which nothing runs takes a hundredth or two of a CPU; a program that computes, most of one.
IDLE_CPUS = 0.1


@dataclass(frozen=True)
class _Measured:
    """CPU seconds that an attempt of a task had used at a moment."""

    attempt: int
    at: float
    cpu_seconds: float


class Healing:
    """Looks every `LOOK_SECONDS`, beside the loop that asks it to: a look into a container may take long."""

    def __init__(
        self, lab: LabPaths, runtime: Runtime, supervisor: Supervisor, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lab = lab
        self._runtime = runtime
        self._supervisor = supervisor
        self._clock = clock
        self._next = clock() + LOOK_SECONDS
        self._looking: Future[None] | None = None
        self._measured: dict[str, _Measured] = {}

    def look(self) -> None:
        """Begin the next look if it is time for one. Raises what went wrong in the last."""
        if self._looking is not None and self._looking.done():
            ended, self._looking = self._looking, None
            ended.result()
        if self._looking is None and self._clock() >= self._next:
            self._next = self._clock() + LOOK_SECONDS
            self._looking = begin(self.heal)

    def heal(self) -> None:
        """One look at all tasks that run."""
        for task in self._supervisor.tasks():
            if not task.wanted or task.seen.state != TaskState.running:
                continue
            fault = self._runtime.fault(task.spec.id)
            self._supervisor.note_fault(task, fault)
            if fault is not None and self._is_idle(task):
                self._supervisor.restart(task.spec.id, reason=fault)

    def _is_idle(self, task: Task) -> bool:
        """Whether a new start takes nothing from anybody: no CPU used to speak of since the last look, and nothing done
        in a workspace for `IDLE_SECONDS`. Of other tasks we know no moment at which they are not at work."""
        now = _Measured(task.seen.attempt, self._clock(), self._runtime.usage(task.spec.id).cpu_seconds)
        before, self._measured[task.spec.id] = self._measured.get(task.spec.id), now
        if task.spec.kind != TaskKind.workspace or before is None or before.attempt != now.attempt:
            return False
        if now.cpu_seconds - before.cpu_seconds > IDLE_CPUS * (now.at - before.at):
            return False
        try:
            address = self._runtime.connect(task.spec.id, task.spec.ports[0])
            return activity.idle_seconds(self._lab, address, task.owner) >= IDLE_SECONDS
        except AilabError:
            return False
