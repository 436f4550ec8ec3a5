"""Keeps MLflow's runs up with the jobs, and with what trainings in notebooks report."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from ailab.daemon.parts import Parts
from ailab.errors import NotRunning
from ailab.jobs.gangs import task_prefix
from ailab.jobs.model import LIVE
from ailab.jobs.queue import Job
from ailab.paths import private_folder
from ailab.tracking.described import Tracked, job_run
from ailab.tracking.due import DueJobs
from ailab.tracking.trainings import training_runs
from ailab.tracking.writer import Writer, Written

EVERY_SECONDS = 2.0
# A run costs MLflow and us a quarter of a second of a CPU. Of jobs that were over in no time so many are written in a
# step; while others run or wait it is one, and then none for so many times as long as that took: they have the machine.
AT_ONCE = 10
REST = 50.0


logger = logging.getLogger(__name__)


class TrackingRuns:
    """The store says which jobs there are, files how far each has been written."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._service = parts.mlflow
        self._writer = Writer(self._service.api, parts.lab.paths.mlflow_runs)
        self._due = DueJobs(parts.jobs, lambda job: self._writer.written(task_prefix(job)).is_closed)
        self._next_beside = 0.0

    def step(self) -> None:
        """Write what there is. A server that does not answer now is asked again in the next step."""
        private_folder(self._parts.lab.paths.mlflow_runs)
        with suppress(NotRunning):
            self._step()

    def _step(self) -> None:
        jobs, short, trainings = self._due.look(), self._short(), training_runs(self._parts.lab.paths)
        if not (jobs or short or trainings) or not (self._service.need() and self._service.api.answers()):
            return
        for job in jobs:
            self._write_job(job)
        began = time.monotonic()
        for job in short:
            self._write_job(job)
        self._next_beside = time.monotonic() + REST * (time.monotonic() - began)
        for one in trainings:
            if self._write(one).is_closed:
                one.training.unlink(missing_ok=True)
                self._writer.forget(one.key)

    def _short(self) -> list[Job]:
        counts = self._parts.jobs.counts()
        if not any(counts.get(state) for state in LIVE):
            return self._due.short(AT_ONCE)
        return self._due.short(1) if time.monotonic() >= self._next_beside else []

    def _write_job(self, job: Job) -> None:
        paths = self._parts.lab.paths
        written = self._write(job_run(job, paths.jobs / str(job.id), paths.root))
        self._due.wrote(job.id, closed=written.is_closed)

    def _write(self, one: Tracked) -> Written:
        known = self._writer.write(one)
        if known.refused:
            logger.warning("%s: %s", one.key, known.refused)
        return known
