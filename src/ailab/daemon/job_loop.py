"""The loop of jobs: at once when something has changed, else once a second, more often while a job is young."""

from __future__ import annotations

import threading
import time

from ailab.daemon import workspace_leases
from ailab.daemon.idle_gpus import IdleGpus
from ailab.daemon.parts import Parts
from ailab.daemon.progress_events import ProgressEvents
from ailab.daemon.troubles import Troubles
from ailab.jobs import schedules
from ailab.jobs.worker import IDLE_SECONDS
from ailab.working import forget_old

TIDY_SECONDS = 3600.0
# It rests this many times as long as it has worked, a second at most: while thousands of jobs are submitted, each of
# which wakes it, the daemon is there for those who submit.
REST = 4.0


class JobLoop(threading.Thread):
    """Runs until `parts.leaving` is set and `parts.jobs.changed` has woken it."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(name="jobs", daemon=True)
        self._parts = parts
        self._idle_gpus = IdleGpus(parts)
        self._progress_events = ProgressEvents(parts)
        self._troubles = Troubles(parts.lab.store, "jobs")
        self._next_look = 0.0
        self._next_tidying = time.monotonic() + TIDY_SECONDS

    def run(self) -> None:
        parts = self._parts
        while not parts.leaving.is_set():
            parts.jobs.changed.clear()
            pause, began = IDLE_SECONDS, time.monotonic()
            try:
                schedules.submit_due(parts.lab.store, parts.jobs)
                if time.monotonic() >= self._next_look:
                    self._next_look = time.monotonic() + IDLE_SECONDS
                    workspace_leases.settle(parts)
                    self._idle_gpus.look()
                    self._progress_events.look()
                pause = parts.worker.step()
                if time.monotonic() >= self._next_tidying:
                    self._next_tidying = time.monotonic() + TIDY_SECONDS
                    forget_old(parts.lab, parts.jobs)
                self._troubles.over()
            except Exception as error:
                self._troubles.note(error)
            parts.leaving.wait(min(REST * (time.monotonic() - began), IDLE_SECONDS))
            parts.jobs.changed.wait(pause)
