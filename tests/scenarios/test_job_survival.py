"""kill -9 of whoever runs the jobs, at random moments: every job runs as often as it should, and nothing is left held.

`./check --long` has 200 kills over 500 jobs; the check has fewer.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from job_worker import CAPACITY

from ailab.jobs.model import JobRequest, JobState
from ailab.jobs.queue import Jobs
from ailab.runtimes.base import TaskState
from ailab.runtimes.process import ProcessRuntime
from ailab.store import Store

pytestmark = pytest.mark.lab
SEED = 20261128
END_SECONDS = 900.0


@pytest.mark.parametrize("most", [8, pytest.param(200, marks=pytest.mark.long)])
def test_every_job_runs_exactly_once_whoever_is_killed(tmp_path: Path, most: int) -> None:
    count = most * 5 // 2
    # Some are two tasks. None of those fails: of one that does, the other may be stopped before it has said anything.
    gangs = {number for number in range(count) if number % 3 == 1 and number % 5}
    seeded = random.Random(SEED)
    store = Store(tmp_path / "lab.db").open()
    jobs = Jobs(store)
    said = tmp_path / "said"
    requests = []
    for number in range(count):
        # One write of one line: appended whole. Every fifth fails, which no kill may make a retry of.
        script = (
            f"sleep {seeded.uniform(0, 0.3):.2f}; echo {number}.$AILAB_WORKER >> {said}; exit {int(number % 5 == 0)}"
        )
        gang = {"workers": 2, "strategy": "multiworker"} if number in gangs else {}
        requests.append(JobRequest(command=("sh", "-c", script), cwd="/", name=str(number), **gang))
    jobs.submit(requests, owner="ada", actor="test")
    words = [sys.executable, str(Path(__file__).parent.parent / "job_worker.py"), str(tmp_path)]
    deadline, kills = time.monotonic() + END_SECONDS, 0
    while kills < most or jobs.holding() or jobs.queued():
        assert time.monotonic() < deadline, f"{kills} kills, {jobs.counts()}"
        worker = subprocess.Popen(words)
        try:
            # The first moments, in which a worker finds its way, are as likely as all others.
            worker.wait(seeded.uniform(0.3, 1.5) if kills < most else 20.0)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait(10)
        kills += 1
    runtime = ProcessRuntime(tmp_path / "tasks")
    assert jobs.counts() == {JobState.done: count - len(range(0, count, 5)), JobState.failed: len(range(0, count, 5))}
    assert {job.reason for job in jobs.find(states=[JobState.failed], limit=count)} == {"exit-status"}
    ran = Counter(said.read_text().split())
    workers = [f"{number}.{worker}" for number in range(count) for worker in range(1 + (number in gangs))]
    assert ran == Counter(workers)
    assert jobs.leases() == [] and CAPACITY.cpus
    assert not [task for task in runtime.tasks() if runtime.poll(task).state != TaskState.exited]
