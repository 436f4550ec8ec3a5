"""The loop that keeps MLflow's runs up with the jobs, and with what trainings in notebooks report."""

from __future__ import annotations

import math
import sys
import threading
import time

from ailab.daemon.mlflow_service import Bell, MlflowService
from ailab.daemon.parts import Parts
from ailab.daemon.troubles import Troubles
from ailab.errors import NotFound, NotRunning
from ailab.jobs.model import ENDED, JobState
from ailab.jobs.queue import Holding, Job
from ailab.paths import private_folder
from ailab.tracking.described import Tracked, job_run
from ailab.tracking.trainings import training_runs
from ailab.tracking.writer import Writer

EVERY_SECONDS = 2.0
# A job is taken up when it has run for so long, or has ended.
YOUNG_SECONDS = 3.0
# Of those that have ended so many are written in a step; fewer while jobs come and go quickly, which have the machine.
AT_ONCE = 20
BESIDE_OTHERS = 3
# Of the jobs that had ended before this daemon began, the newest so many are looked at.
LOOKED_BACK = 500


class TrackingLoop(threading.Thread):
    """Runs until `parts.leaving` is set. The store says which jobs there are, files how far each has been written."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(name="tracking", daemon=True)
        self._parts = parts
        self._service: MlflowService = parts.mlflow
        self._writer = Writer(self._service.api, parts.lab.paths.mlflow / "runs")
        # Jobs that hold leases or are to be tried again; those that have ended and may not be written to their end; and
        # which of those that ended lately are.
        self._live: set[int] = set()
        self._ended: dict[int, None] = {}
        self._closed: set[int] = set()
        self._since = 0.0
        self._troubles = Troubles(parts.lab.store, "tracking")

    def run(self) -> None:
        if not self._service.is_on:
            return
        private_folder(self._parts.lab.paths.mlflow / "runs")
        Bell(self._parts.lab, self._service, self._parts.leaving).start()
        while not self._parts.leaving.wait(EVERY_SECONDS):
            try:
                self._service.look()
                self._step()
                self._troubles.over()
            except NotRunning:
                continue
            except Exception as error:
                self._troubles.note(error)

    def _step(self) -> None:
        due = self._due()
        if due and self._service.need() and self._service.api.answers():
            for one in due:
                self._write(one)

    def _due(self) -> list[Tracked]:
        """What there may be something to write of: the jobs that run, those that have ended since, trainings."""
        paths, jobs = self._parts.lab.paths, self._parts.jobs
        holding = {job.id: job for job in jobs.holding()}
        self._live |= holding.keys()
        self._take_in_ended()
        young = {job.id for job in holding.values() if not _has_run(job)}
        live = [job for job in map(self._job, sorted(self._live - young)) if job is not None]
        # The end of one that began before this daemon may have been written down as of long ago.
        self._ended |= dict.fromkeys(job.id for job in live if job.state in ENDED)
        self._live -= self._ended.keys()
        count = BESIDE_OTHERS if young or jobs.counts().get(JobState.queued) else AT_ONCE
        ended = [job for job in map(self._job, list(self._ended)[:count]) if job is not None]
        found = [job for job in live if job.id in self._live and job.started_at is not None] + ended
        return [job_run(job, paths.jobs / str(job.id), paths.root) for job in found] + training_runs(paths)

    def _job(self, number: int) -> Job | None:
        """None for one that is known no more, or has ended without having begun, and is forgotten here."""
        try:
            job = self._parts.jobs.get(number)
        except NotFound:
            job = None
        if job is not None and (job.started_at is not None or job.state not in ENDED):
            return job
        self._live.discard(number)
        self._ended.pop(number, None)
        return None

    def _take_in_ended(self) -> None:
        """Those that have ended since the last look."""
        jobs, began = self._parts.jobs, time.time()
        if self._since:
            lately = jobs.ended_since(self._since)
            self._closed &= set(lately)
        else:
            past = [job for job in jobs.find(states=ENDED, limit=LOOKED_BACK) if self._is_open(job)]
            lately = [job.id for job in reversed(past)]
        # Who wrote an end down may have looked at the clock a moment before.
        self._since = began - 5 * EVERY_SECONDS
        self._ended |= dict.fromkeys(job for job in lately if job not in self._closed)
        self._live -= self._ended.keys()

    def _is_open(self, job: Job) -> bool:
        return job.started_at is not None and not self._writer.written(f"job-{job.id}").is_closed

    def _write(self, one: Tracked) -> None:
        known = self._writer.write(one)
        if known.refused:
            print(f"{one.key}: {known.refused}", file=sys.stderr, flush=True)
        if one.job is None:
            if known.is_closed:
                one.training.unlink(missing_ok=True)
                self._writer.forget(one.key)
        elif one.job in self._ended:
            del self._ended[one.job]
            if known.is_closed:
                self._closed.add(one.job)
            else:
                # Last in turn from now on, that it keeps nobody else.
                self._ended[one.job] = None


def _has_run(job: Holding) -> bool:
    """For so long that it is worth a run before its end."""
    return job.state == JobState.running and time.time() - (job.started_at or math.inf) >= YOUNG_SECONDS
