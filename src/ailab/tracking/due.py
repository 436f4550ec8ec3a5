"""Which jobs there may be something to write of into MLflow: those that run, and those that have ended since."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from ailab.errors import NotFound
from ailab.jobs.model import ENDED, JobState
from ailab.jobs.queue import Holding, Job, Jobs
from ailab.unreadable import Unreadable

# A job has a run once it has run for so long, or has ended.
YOUNG_SECONDS = 3.0
# Of the jobs that had ended before this daemon began, the newest so many are looked at.
LOOKED_BACK = 500
# Who wrote an end down may have looked at the clock so long before.
SLACK_SECONDS = 10.0


class DueJobs:
    """Looked at every other second, also while thousands of jobs come and go: only those are read that are written
    next. `is_closed` says of a job that ended before us whether it has been written to its end."""

    def __init__(self, jobs: Jobs, is_closed: Callable[[int], bool]) -> None:
        self._jobs = jobs
        self._is_closed = is_closed
        # Those that have a run; those that ended before they had one; which of those that ended lately are written.
        self._live: set[int] = set()
        self._short: dict[int, None] = {}
        self._closed: set[int] = set()
        self._since = 0.0

    def look(self) -> list[Job]:
        """What runs, is to be tried again, or has ended and had a run before. `wrote` is to be told of each that was
        written, here and below."""
        self._live |= {job.id for job in self._jobs.holding() if _has_run(job)}
        self._take_in_ended()
        return [job for job in self._known(sorted(self._live)) if job.started_at is not None]

    def short(self, count: int) -> list[Job]:
        """As many as that of those that ended before they had a run, the first to end first."""
        return self._known(list(self._short)[:count])

    def wrote(self, job: int, *, closed: bool) -> None:
        if closed:
            self._live.discard(job)
            self._short.pop(job, None)
            self._closed.add(job)
        elif job in self._short:
            # Last in turn from now on, that it keeps nobody else.
            del self._short[job]
            self._short[job] = None

    def _known(self, numbers: list[int]) -> list[Job]:
        """Those jobs, without any that is known no more, or has ended without having begun: it is forgotten here."""
        found = []
        for number in numbers:
            try:
                job = self._jobs.get(number)
            except (NotFound, Unreadable):
                job = None
            if job is not None and (job.started_at is not None or job.state not in ENDED):
                found.append(job)
            else:
                self._live.discard(number)
                self._short.pop(number, None)
        return found

    def _take_in_ended(self) -> None:
        """Those that have ended since the last look."""
        began = time.time()
        if self._since:
            lately = self._jobs.ended_since(self._since)
            self._closed &= set(lately)
        else:
            past = self._jobs.find(states=ENDED, limit=LOOKED_BACK)
            lately = [job.id for job in reversed(past) if job.started_at is not None]
            self._closed = {job for job in lately if self._is_closed(job)}
        self._since = began - SLACK_SECONDS
        self._short |= dict.fromkeys(job for job in lately if job not in self._closed and job not in self._live)


def _has_run(job: Holding) -> bool:
    """For so long that it is worth a run before its end."""
    return job.state == JobState.running and time.time() - (job.started_at or math.inf) >= YOUNG_SECONDS
