"""The loop that keeps MLflow's runs up with the jobs, and with what trainings in notebooks report."""

from __future__ import annotations

import sys
import threading
import time

from ailab.daemon.mlflow_service import Bell, MlflowService
from ailab.daemon.parts import Parts
from ailab.daemon.troubles import Troubles
from ailab.errors import NotFound, NotRunning
from ailab.jobs.model import ENDED, JobState
from ailab.jobs.queue import Job
from ailab.paths import private_folder
from ailab.tracking.described import Tracked, job_run
from ailab.tracking.trainings import training_runs
from ailab.tracking.writer import Writer

EVERY_SECONDS = 2.0
# A job is taken up when it has run for so long, or has ended.
YOUNG_SECONDS = 3.0
# While jobs come and go quickly they have the machine: so many of those that have ended are written in a step.
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
        self._open: dict[int, None] = {}
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
        paths, running, ended = self._parts.lab.paths, [], []
        self._take_in()
        for number in list(self._open):
            job = self._job(number)
            if job is None:
                del self._open[number]
            elif job.started_at is None:
                continue
            elif job.state in ENDED:
                ended.append(job)
            elif job.state != JobState.running or time.time() - job.started_at >= YOUNG_SECONDS:
                running.append(job)
        if len(running) < len(self._open) - len(ended) or self._parts.jobs.counts().get(JobState.queued):
            ended = ended[:BESIDE_OTHERS]
        found = [job_run(job, paths.jobs / str(job.id), paths.root) for job in (*running, *ended)]
        return found + training_runs(paths)

    def _job(self, number: int) -> Job | None:
        """None for one that is known no more, or has ended without having begun."""
        try:
            job = self._parts.jobs.get(number)
        except NotFound:
            return None
        return None if job.state in ENDED and job.started_at is None else job

    def _take_in(self) -> None:
        """The jobs that hold leases, and those that have ended since the last look."""
        jobs = self._parts.jobs
        self._open |= dict.fromkeys(job.id for job in jobs.holding())
        began = time.time()
        if self._since:
            self._open |= dict.fromkeys(jobs.ended_since(self._since))
        else:
            past = [job for job in jobs.find(states=ENDED, limit=LOOKED_BACK) if self._is_open(job)]
            self._open |= dict.fromkeys(job.id for job in reversed(past))
        # Who wrote an end down may have looked at the clock a moment before.
        self._since = began - 5 * EVERY_SECONDS
        for number in [number for number in self._open if self._writer.written(f"job-{number}").is_closed]:
            del self._open[number]

    def _is_open(self, job: Job) -> bool:
        return job.started_at is not None and not self._writer.written(f"job-{job.id}").is_closed

    def _write(self, one: Tracked) -> None:
        known = self._writer.write(one)
        if known.refused:
            print(f"{one.key}: {known.refused}", file=sys.stderr, flush=True)
        if known.is_closed and one.key.startswith("training-"):
            one.training.unlink(missing_ok=True)
            self._writer.forget(one.key)
