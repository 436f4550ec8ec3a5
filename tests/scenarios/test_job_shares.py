"""People who submit at once, on a real worker with real processes: each is given as much as any other."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from job_room import Room

from ailab.jobs.model import JobRequest
from ailab.jobs.scheduling import charge
from ailab.resources.ledger import Capacity
from ailab.waiting import wait_for

pytestmark = pytest.mark.lab
EACH = 20
# More CPUs than this machine has: what sleeps needs none of them, and so the run is short.
CAPACITY = Capacity(16, 8 * 1024**3)
END_SECONDS = 300.0


@pytest.mark.parametrize("count", [12, pytest.param(40, marks=pytest.mark.long)])
def test_people_who_submit_at_once_are_given_equal_shares(tmp_path: Path, count: int) -> None:
    people = [f"user{number:02}" for number in range(count)]
    with Room(tmp_path) as room:
        room.worker.capacity = CAPACITY
        request = JobRequest(command=("sleep", "0.15"), cwd="/")
        for person in people:
            room.jobs.submit([request] * EACH, owner=person, actor=person)

        def somebody_has_all() -> bool:
            """Until then everybody has something that waits, and so wants all that there is."""
            room.worker.step()
            return len({row["owner"] for row in room.jobs.queued()}) < len(people)

        wait_for(somebody_has_all, timeout=END_SECONDS, what="the first whose jobs have all begun", last=0.05)
        now = time.time()
        given = room.jobs.usage(now)
        for lease, since in room.jobs.leases():
            given[lease.owner] += charge(lease, CAPACITY, now - since)
        fair = sum(given.values()) / len(people)
        assert given.keys() == set(people) and all(abs(one / fair - 1) <= 0.05 for one in given.values()), given
