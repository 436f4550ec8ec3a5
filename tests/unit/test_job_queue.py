"""Jobs from submission to their end, with a real store and real processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_room import END_SECONDS, Room
from job_worker import CAPACITY

from ailab import events
from ailab.errors import Conflict, NotFound, UsageError
from ailab.jobs import ends, schedules, worker
from ailab.jobs.model import After, JobRequest, JobState
from ailab.jobs.wish import JobWish
from ailab.resources.ledger import Lease
from ailab.waiting import wait_for


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with Room(tmp_path) as made:
        yield made


def test_a_job_runs_to_its_end_and_holds_nothing_then(room: Room) -> None:
    job = room.submit("print('hello')", name="greeting")
    assert room.jobs.get(job).state == JobState.queued
    ended = room.until(job, JobState.done)
    assert ended.exit_status == 0 and ended.attempt == 1 and room.output(job) == ["hello"]
    assert room.jobs.leases() == []
    assert room.jobs.usage(time.time()).keys() == {"ada"}
    told = [event["after"] for event in events.newest(room.store, 10) if event["subject"] == f"job-{job}"]
    assert told[-1] == "queued" and told[0] == "done"


def test_a_failure_says_why(room: Room) -> None:
    ended = room.until(room.submit("raise SystemExit(3)"), JobState.failed)
    assert (ended.reason, ended.exit_status) == ("exit-status", 3) and "3" in ended.note
    killed = room.until(room.submit("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"), JobState.failed)
    assert "SIGSEGV" in killed.note


def test_a_retry_helps_where_it_can(room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "FIRST_PAUSE", 0.05)
    mark = tmp_path / "mark"
    code = f"import pathlib, sys; m = pathlib.Path({str(mark)!r}); n = len(m.read_text()) if m.exists() else 0\n"
    code += "m.write_text('x' * (n + 1)); sys.exit(0 if n == 2 else 1)"
    ended = room.until(room.submit(code, retries=3), JobState.done)
    assert (ended.attempt, ended.failures) == (3, 2)


def test_a_clock_that_is_set_back_keeps_no_attempt_waiting(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PLAN_SECONDS", 0.1)
    job = room.submit("raise SystemExit(1)", retries=1)

    def failed_once() -> bool:
        room.worker.step()
        return room.jobs.get(job).failures == 1

    wait_for(failed_once, timeout=END_SECONDS, what="the first failure")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 86400)
    assert room.until(job, JobState.failed).attempt == 2


def test_a_command_that_is_not_there_is_not_tried_again(room: Room) -> None:
    request = JobRequest(command=("no-such-program",), cwd="/", retries=5)
    job = room.jobs.submit([request], owner="ada", actor="ada")[0]
    ended = room.until(job, JobState.failed)
    assert ended.reason == "cannot-start" and ended.attempt == 1 and "no-such-program" in ended.note


def test_the_pause_before_a_retry_grows() -> None:
    assert [ends.pause_before(count) for count in (1, 2, 3, 20)] == [5, 10, 20, 600]


def test_one_that_waits_can_be_stopped(room: Room) -> None:
    job = room.submit("print(1)", not_before=time.time() + 3600)
    room.worker.step()
    room.jobs.ask_to_stop(job, "ada", actor="ada")
    assert room.jobs.get(job).state == JobState.stopped
    with pytest.raises(Conflict):
        room.jobs.ask_to_stop(job, "ada", actor="ada")
    with pytest.raises(NotFound):
        room.jobs.ask_to_stop(999, "ada", actor="ada")


def test_one_that_runs_is_stopped_with_time_to_save(room: Room) -> None:
    code = "import signal, sys, time\n"
    code += "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(0)))\n"
    code += "print('ready', flush=True); time.sleep(600)"
    job = room.submit(code, retries=3)
    room.until(job, JobState.running)
    wait_for(lambda: room.output(job), timeout=END_SECONDS, what="its first line")
    room.jobs.ask_to_stop(job, "bob", actor="bob")
    ended = room.until(job, JobState.stopped)
    assert room.output(job) == ["ready", "saved"] and "bob" in ended.note


def test_a_timeout_ends_it(room: Room) -> None:
    ended = room.until(room.submit("import time; time.sleep(600)", timeout=0.5, grace=1, retries=2), JobState.failed)
    assert ended.reason == "timeout" and ended.attempt == 1


def test_one_comes_after_another(room: Room) -> None:
    first = room.submit("import time; time.sleep(0.3)")
    second = room.submit("pass", after=(After(first, "ok"),))
    broken = room.submit("raise SystemExit(1)")
    never = room.submit("pass", after=(After(broken, "ok"),))
    anyway = room.submit("pass", after=(After(broken, "any"),))
    assert room.until(second, JobState.done).started_at >= room.jobs.get(first).ended_at  # type: ignore[operator]
    assert room.until(never, JobState.failed).reason == "never"
    room.until(anyway, JobState.done)
    with pytest.raises(UsageError):
        room.submit("pass", after=(After(12345, "ok"),))


def test_the_machine_is_never_given_twice(room: Room) -> None:
    jobs = [room.submit("import time; time.sleep(0.4)", cpus=3) for _ in range(3)]
    while any(room.jobs.get(job).state not in (JobState.done, JobState.failed) for job in jobs):
        room.worker.step()
        assert sum(lease.cpus for lease, _since in room.jobs.leases()) <= CAPACITY.cpus
    assert {room.jobs.get(job).state for job in jobs} == {JobState.done}


def test_a_new_worker_takes_over_what_runs(room: Room, tmp_path: Path) -> None:
    job = room.submit("import time; time.sleep(1); print('done')")
    room.until(job, JobState.running)
    room.worker.pause()
    later = Room(tmp_path)
    assert later.until(job, JobState.done).attempt == 1
    assert later.output(job) == ["done"]
    later.worker.close()


def test_one_that_was_claimed_and_not_started_is_started(room: Room, tmp_path: Path) -> None:
    """As a kill of the daemon leaves it between the two."""
    job = room.submit("print('once')")
    assert room.jobs.claim(job, [Lease(f"job-{job}", "ada", 1, 1)])
    assert not room.jobs.claim(job, [Lease(f"job-{job}", "ada", 1, 1)])
    later = Room(tmp_path)
    assert later.until(job, JobState.done).attempt == 1
    assert later.output(job) == ["once"]
    later.worker.close()


def test_one_that_is_lost_is_resumed_if_it_asked_for_it(room: Room) -> None:
    code = "import time; print('begun', flush=True); time.sleep({})"
    kept, lost = room.submit(code.format(0.5), resume=True), room.submit(code.format(600))
    for job in (kept, lost):
        room.until(job, JobState.running)
        room.runtime.stop(f"job-{job}", grace=0)
    assert room.until(lost, JobState.failed).reason == "lost"
    assert room.until(kept, JobState.done).attempt == 2


def test_an_array_is_many_jobs(room: Room) -> None:
    wish = JobWish.model_validate({"command": ["python", "train.py"], "cwd": "/", "array": "3-5"})
    requests = wish.requests(cpus=1)
    assert [one.name for one in requests] == ["train[3]", "train[4]", "train[5]"]
    assert [one.variables["AILAB_ARRAY_INDEX"] for one in requests] == ["3", "4", "5"]
    ids = room.jobs.submit(requests, owner="ada", actor="ada")
    assert [room.jobs.get(job).array for job in ids] == [ids[0]] * 3


def test_a_schedule_submits_again_and_leaves_out_what_still_waits(room: Room) -> None:
    wish = JobWish.model_validate({"command": ["true"], "cwd": "/", "every": "1h"})
    schedules.add(room.store, wish, owner="ada", cpus=1)
    schedules.submit_due(room.store, room.jobs)
    schedules.submit_due(room.store, room.jobs)
    assert len(room.jobs.find()) == 1
    with room.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE schedules SET due = 0")
    schedules.submit_due(room.store, room.jobs)
    assert len(room.jobs.find()) == 1, "its last job still waits"
    room.until(room.jobs.find()[0].id, JobState.done)
    with room.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE schedules SET due = 0")
    schedules.submit_due(room.store, room.jobs)
    assert len(room.jobs.find()) == 2
    assert schedules.all_of(room.store)[0]["due"] > time.time()


def test_old_jobs_are_forgotten_but_for_the_newest(room: Room) -> None:
    jobs = [room.submit("pass", not_before=time.time() + 3600) for _ in range(4)]
    for job in jobs[:3]:
        room.jobs.ask_to_stop(job, "ada", actor="ada")
    assert room.jobs.forget(time.time() + 1, keep=2) == jobs[:2]
    assert [job.id for job in room.jobs.find()] == [jobs[3], jobs[2]]
