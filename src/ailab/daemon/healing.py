"""Tasks that run but have lost something, as their GPUs: found, told, and started anew when nothing runs in them."""

from __future__ import annotations

import time
from collections.abc import Callable

from ailab.daemon.idleness import Idleness
from ailab.daemon.supervisor import IDLE_SECONDS, Supervisor
from ailab.paths import LabPaths
from ailab.runtimes.base import Runtime, TaskState

LOOK_SECONDS = 60.0


class Healing:
    """Looks at tasks that run; a look into a container may take long."""

    def __init__(
        self, lab: LabPaths, runtime: Runtime, supervisor: Supervisor, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._runtime = runtime
        self._supervisor = supervisor
        self._idleness = Idleness(lab, runtime, clock)

    def heal(self) -> None:
        """One look at all tasks that run."""
        for task in self._supervisor.tasks():
            if not task.wanted or task.seen.state != TaskState.running:
                continue
            fault = self._runtime.fault(task.spec.id)
            self._supervisor.note_fault(task, fault)
            if fault is not None and self._idleness.seconds(task) >= IDLE_SECONDS:
                self._supervisor.restart(task.spec.id, reason=fault)
