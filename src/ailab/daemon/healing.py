"""Tasks that run but have lost something, as their GPUs: found, told, and started anew when nothing runs in them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future

from ailab.daemon.idleness import Idleness
from ailab.daemon.supervisor import IDLE_SECONDS, Supervisor
from ailab.runtimes.base import Runtime, TaskState
from ailab.waiting import begin

LOOK_SECONDS = 60.0


class Healing:
    """Looks every `LOOK_SECONDS`, beside the loop that asks it to: a look into a container may take long."""

    def __init__(self, runtime: Runtime, supervisor: Supervisor, clock: Callable[[], float] = time.monotonic) -> None:
        self._runtime = runtime
        self._supervisor = supervisor
        self._clock = clock
        self._next = clock() + LOOK_SECONDS
        self._looking: Future[None] | None = None
        self._idleness = Idleness(runtime, clock)

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
            if fault is not None and self._idleness.seconds(task) >= IDLE_SECONDS:
                self._supervisor.restart(task.spec.id, reason=fault)
