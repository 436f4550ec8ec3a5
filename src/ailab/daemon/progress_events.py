"""What goes wrong in a training that runs, as events of the lab: each trouble once in an attempt."""

from __future__ import annotations

import time

from ailab import events
from ailab.daemon.job_views import progress_file
from ailab.daemon.parts import Parts
from ailab.jobs import progress
from ailab.jobs.gangs import task_prefix
from ailab.jobs.model import JobState
from ailab.jobs.queue import Job

LOOK_SECONDS = 30.0


class ProgressEvents:
    """Looks at what the jobs that run have reported."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        # The troubles of each attempt that are told, by job and attempt.
        self._told: dict[tuple[int, int], set[str]] = {}

    def look(self) -> None:
        running = self._parts.jobs.find(states=(JobState.running,), limit=1_000_000)
        self._told = {(job.id, job.attempt): self._told.get((job.id, job.attempt), set()) for job in running}
        for job in running:
            self._tell(job, self._told[job.id, job.attempt])

    def _tell(self, job: Job, told: set[str]) -> None:
        reported = progress.read(progress_file(self._parts, job.id), progress.TAIL_BYTES)
        # What an attempt before has left is not this one's trouble.
        if reported is None or reported.last.t < (job.started_at or 0.0):
            return
        found = {one.name: one for one in progress.events_of(reported, time.time())}
        if not found.keys() - told:
            return
        engine = self._parts.lab.store.engine
        with engine.begin() as connection:
            # A daemon before this one may have told it.
            told |= events.details_of(connection, task_prefix(job.id), "name", attempt=job.attempt)
            for name in found.keys() - told:
                trouble = found[name]
                detail = trouble.to_json() | {"name": name, "attempt": job.attempt}
                events.record(
                    connection,
                    actor="daemon",
                    kind="progress",
                    subject=task_prefix(job.id),
                    after=str(trouble.kind),
                    detail=detail,
                )
        told |= found.keys()
