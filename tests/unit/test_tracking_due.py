"""Which jobs are written into MLflow next."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ailab.jobs.model import JobRequest, JobState
from ailab.jobs.queue import End, Job, Jobs
from ailab.resources.ledger import Capacity, Lease
from ailab.store import Store
from ailab.tracking.due import SLACK_SECONDS, YOUNG_SECONDS, DueJobs

CAPACITY = Capacity(8, 8 * 1024**3)
DONE = End(JobState.done, exit_status=0)


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(Store(tmp_path / "lab.db").open())


def submit(jobs: Jobs) -> int:
    request = JobRequest(command=("true",), cwd="/")
    return jobs.submit([request], owner="ada", actor="ada")[0]


def begin(jobs: Jobs, job: int, ago: float = 0.0) -> None:
    assert jobs.claim(job, [Lease(f"job-{job}", "ada", 1, 0)])
    jobs.started(job, time.time() - ago)


def begun(jobs: Jobs, ago: float = 0.0) -> int:
    job = submit(jobs)
    begin(jobs, job, ago)
    return job


def end(jobs: Jobs, job: int) -> None:
    assert jobs.end(jobs.get(job), DONE, CAPACITY)


def ended(jobs: Jobs, count: int) -> list[int]:
    made = [begun(jobs) for _number in range(count)]
    for job in made:
        end(jobs, job)
    return made


def no_one(_job: int) -> bool:
    return False


def written(looked: DueJobs, closed: Callable[[int], bool] = lambda _job: True, short: int = 10) -> list[int]:
    """What is written at one look."""
    found = [job.id for job in (*looked.look(), *looked.short(short))]
    for job in found:
        looked.wrote(job, closed=closed(job))
    return found


def runs_on(_job: int) -> bool:
    return False


def test_one_that_runs_is_written_again_and_again_and_to_its_end_once(jobs: Jobs) -> None:
    looked = DueJobs(jobs, no_one)
    assert written(looked) == []
    job, young = begun(jobs, ago=YOUNG_SECONDS + 1), begun(jobs)
    assert written(looked, runs_on) == written(looked, runs_on) == [job]
    for one in (job, young):
        end(jobs, one)
    assert written(looked) == [job, young]
    assert written(looked) == written(looked) == []


def test_the_end_of_one_that_has_a_run_waits_for_no_short_one(jobs: Jobs) -> None:
    looked = DueJobs(jobs, no_one)
    job = begun(jobs, ago=YOUNG_SECONDS + 1)
    assert written(looked, runs_on) == [job]
    short = ended(jobs, 5)
    end(jobs, job)
    assert written(looked, short=2) == [job, *short[:2]]
    assert written(looked, short=0) == [] and written(looked) == short[2:]


def test_one_that_cannot_be_written_to_its_end_keeps_nobody_else(jobs: Jobs) -> None:
    looked = DueJobs(jobs, no_one)
    written(looked)
    stuck, *others = ended(jobs, 4)
    assert written(looked, lambda job: job != stuck, short=2) == [stuck, others[0]]
    assert written(looked, lambda job: job != stuck, short=3) == [*others[1:], stuck]


def test_what_had_ended_before_is_looked_at_once(jobs: Jobs) -> None:
    old = ended(jobs, 3)
    never = submit(jobs)
    jobs.ask_to_stop(never, "ada", actor="ada")
    asked: list[int] = []

    def is_closed(job: int) -> bool:
        asked.append(job)
        return job == old[0]

    looked = DueJobs(jobs, is_closed)
    assert written(looked) == old[1:] and asked == old
    assert written(looked) == [] and asked == old


def test_one_that_is_tried_again_is_written_meanwhile(jobs: Jobs) -> None:
    looked = DueJobs(jobs, no_one)
    job = begun(jobs, ago=YOUNG_SECONDS + 1)
    assert written(looked, runs_on) == [job]
    failed = End(JobState.failed, exit_status=1)
    jobs.again(jobs.get(job), failed, CAPACITY, not_before=time.time() + 60, failures=1)
    assert written(looked, runs_on) == [job]


def test_an_end_that_is_written_down_as_of_long_ago_is_seen(jobs: Jobs) -> None:
    looked = DueJobs(jobs, no_one)
    job = begun(jobs, ago=100)
    assert written(looked, runs_on) == [job]
    jobs.end(jobs.get(job), End(JobState.done, exit_status=0, ended_at=time.time() - 2 * SLACK_SECONDS), CAPACITY)
    assert written(looked) == [job] and written(looked) == []


def test_many_that_end_are_read_no_sooner_than_they_are_written(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = DueJobs(jobs, no_one)
    written(looked)
    ended(jobs, 30)
    read: list[int] = []
    get = jobs.get

    def noticed(job: int) -> Job:
        read.append(job)
        return get(job)

    monkeypatch.setattr(jobs, "get", noticed)
    written(looked, short=3)
    assert len(read) == 3
