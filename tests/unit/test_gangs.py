"""Jobs of several tasks: what each is told, whose end counts, all or none, with a real store and real processes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from job_room import Room
from job_worker import CAPACITY, make_specs

from ailab.jobs import ends, gangs
from ailab.jobs.gangs import OVER, Strategy, members, needs, tasks_among, telling, variables
from ailab.jobs.model import JobState
from ailab.jobs.output import Output
from ailab.jobs.worker import Worker
from ailab.resources import ledger
from ailab.resources.ledger import Lease, Need
from ailab.runtimes.base import Seen, TaskState
from ailab.waiting import wait_for

NUMBER = "import os, time, sys; n = int(os.environ['AILAB_WORKER'])\n"
# What follows it can `say(name)` and `hear(name)`: members of a gang agree on moments, however slow the machine is.
AGREED = (
    NUMBER
    + """
import pathlib
say = lambda name: pathlib.Path({folder!r}, str(name)).touch()
def hear(*names):
    while not all(pathlib.Path({folder!r}, str(name)).exists() for name in names): time.sleep(0.02)
"""
)
SLEEPS = NUMBER + "print('begun', n, flush=True); time.sleep(600)"


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with Room(tmp_path) as made:
        yield made


@pytest.fixture
def agreed(tmp_path: Path) -> str:
    """The first lines of a program whose members agree on moments."""
    folder = tmp_path / "said"
    folder.mkdir()
    return AGREED.format(folder=str(folder))


def seen(status: int | None = 0, reason: str | None = None, ended: int = 0) -> Seen:
    return Seen(TaskState.exited, exit_status=status, reason=reason, ended_at=f"2026-01-01T00:00:{ended:02d}+00:00")


RUNS = Seen(TaskState.running, started_at="2026-01-01T00:00:00+00:00")


def test_a_lone_job_is_a_gang_of_one() -> None:
    assert [(one.task, one.name) for one in members(7)] == [("job-7", "worker 0")]
    assert [one.task for one in members(7, "mirrored", 4)] == ["job-7"]
    assert [one.task for one in members(7, "multiworker", 1)] == ["job-7"]


def test_with_ps_a_chief_comes_first_and_a_server_last() -> None:
    gang = members(7, "ps", 2)
    assert [one.name for one in gang] == ["chief", "worker 0", "worker 1", "ps 0"]
    assert [one.task for one in gang] == ["job-7-0", "job-7-1", "job-7-2", "job-7-3"]
    each = Need(2, 5, 1)
    assert needs("ps", 2, each) == (Need(0, 5), each, each, Need(0, 5))
    assert needs("mirrored", 3, each) == (Need(6, 15, 3),)
    assert needs("", 1, each) == (each,)


def test_members_find_each_other() -> None:
    hosts = ["a:1", "b:2"]
    told = variables("multiworker", 2, members(7, "multiworker", 2), 1, hosts)
    assert json.loads(told["TF_CONFIG"]) == {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": 1}}
    assert (told["AILAB_WORKER"], told["AILAB_WORKERS"]) == ("1", "2")
    gang = members(7, "ps", 2)
    told = variables("ps", 2, gang, 2, ["a:1", "b:2", "c:3", "d:4"])
    assert json.loads(told["TF_CONFIG"]) == {
        "cluster": {"chief": ["a:1"], "worker": ["b:2", "c:3"], "ps": ["d:4"]},
        "task": {"type": "worker", "index": 1},
    }
    told = variables("horovod", 2, members(7, "horovod", 2), 1, hosts)
    assert (told["HOROVOD_RANK"], told["HOROVOD_SIZE"], told["HOROVOD_GLOO_RENDEZVOUS_PORT"]) == ("1", "2", "1")
    assert "TF_CONFIG" not in told and "TF_CONFIG" not in variables("mirrored", 2, members(7, "mirrored", 2), 0, ["a"])


def test_tasks_of_a_job_are_found_in_their_order() -> None:
    ids = ["hub", "job-7-10", "job-70", "job-7-2", "job-7-0", "workspace-job-7"]
    assert tasks_among(ids, 7) == ["job-7-0", "job-7-2", "job-7-10"] and tasks_among(ids, 70) == ["job-70"]


@pytest.mark.parametrize(
    ("strategy", "asked", "ends", "which"),
    [
        ("multiworker", "", [seen(), seen()], 0),
        ("multiworker", "", [seen(1, ended=5), seen(3, ended=2)], 1),
        ("multiworker", OVER, [seen(143, "stopped", 1), seen(3, ended=2)], 1),
        ("multiworker", OVER, [seen(0, "stopped", 1), seen(3, ended=2), seen(1, ended=1)], 2),
        # Nobody of ours stopped it, so the lab was brought down, and the other died of that.
        ("multiworker", "", [seen(1, ended=1), seen(143, "stopped", 2)], 1),
        ("multiworker", "ada", [seen(1, ended=1), seen(143, "stopped", 2)], 1),
        ("ps", OVER, [seen(), seen(143, "stopped"), seen(137, "stopped")], 0),
        ("ps", OVER, [seen(143, "stopped"), seen(2), seen(143, "stopped")], 1),
    ],
)
def test_whose_end_is_the_jobs(strategy: str, asked: str, ends: list[Seen], which: int) -> None:
    assert telling(strategy, asked, ends) == which


def test_when_a_gang_is_over() -> None:
    assert not gangs.is_over("multiworker", [RUNS, seen()])
    assert gangs.is_over("multiworker", [RUNS, seen(1)])
    assert gangs.is_over("ps", [seen(), RUNS, RUNS])
    assert not gangs.is_over("ps", [RUNS, seen(), RUNS])


def test_a_gang_gets_all_its_leases_and_all_end(room: Room) -> None:
    code = NUMBER + "print('worker', n)"
    job = room.submit(code, workers=3, strategy="multiworker", cpus=1)
    room.worker.step()
    assert [held.task for held, _since in room.jobs.leases()] == [f"job-{job}-{number}" for number in range(3)]
    ended = room.until(job, JobState.done)
    assert ended.attempt == 1 and ended.exit_status == 0 and ended.ended_at > ended.started_at  # type: ignore[operator]
    assert [line for number in range(3) for line in room.output(job, number)] == ["worker 0", "worker 1", "worker 2"]
    assert room.jobs.leases() == [] and len(set(ended.ports)) == 3


def test_a_gang_that_does_not_fit_whole_waits_whole(room: Room) -> None:
    first = room.submit("import time; time.sleep(0.5)", cpus=2)
    room.until(first, JobState.running)
    gang = room.submit("pass", workers=3, strategy="multiworker", cpus=1)
    room.worker.step()
    assert room.jobs.get(gang).state == JobState.queued
    assert [held.task for held, _since in room.jobs.leases()] == [f"job-{first}"]
    assert room.worker.blocked == {gang: "cpus"}
    began = room.until(gang, JobState.done).started_at
    assert began >= room.jobs.get(first).ended_at  # type: ignore[operator]


def test_claims_are_all_or_none(room: Room) -> None:
    """A member's lease that cannot be written leaves neither the others' nor a job that seems to start."""
    job = room.submit(SLEEPS, workers=2, strategy="multiworker")
    taken = Lease(f"job-{job}-1", "somebody", 1, 1)
    room.jobs.keep_lease(taken, since=time.time())
    mine = [Lease(f"job-{job}-{number}", "ada", 1, 1) for number in range(2)]
    with pytest.raises(Exception, match="UNIQUE"):
        room.jobs.claim(job, mine)
    assert room.jobs.get(job).state == JobState.queued and [held for held, _at in room.jobs.leases()] == [taken]


def test_one_failure_stops_the_others_and_is_told(room: Room, agreed: str) -> None:
    code = agreed + "say(n); hear(0, 1, 2) if n == 1 else time.sleep(600); sys.exit(3)"
    job = room.submit(code, workers=3, strategy="multiworker", grace=5)
    ended = room.until(job, JobState.failed)
    assert (ended.reason, ended.exit_status) == ("exit-status", 3) and ended.note.startswith("worker 1: ")
    assert not room.running() and room.jobs.leases() == []


def test_who_dies_of_the_others_failure_is_not_its_cause(room: Room, agreed: str, tmp_path: Path) -> None:
    # The third fails first, and the others once its end has been written down.
    code = agreed + "hear('ended') if n < 2 else None; sys.exit(10 + n)"
    job = room.submit(code, workers=3, strategy="multiworker")
    room.worker.step()
    wait_for(lambda: room.runtime.poll(f"job-{job}-2").exit_status == 12, timeout=30, what="the third's end")
    (tmp_path / "said/ended").touch()
    wait_for(lambda: not room.running(), timeout=30, what="the others' end")
    ended = room.until(job, JobState.failed)
    assert ended.exit_status == 12 and ended.note.startswith("worker 2: ")


def test_the_rest_has_its_grace_and_is_killed_then(room: Room, agreed: str) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, lambda *_: print('saved', flush=True))\n"
    code += agreed + "print('begun', flush=True); say(n)\n"
    code += "if n == 0: hear(1); sys.exit(3)\nwhile True: time.sleep(1)"
    job = room.submit(code, workers=2, strategy="multiworker", grace=2)
    ended = room.until(job, JobState.failed)
    assert room.output(job, 1) == ["begun", "saved"] and ended.note.startswith("worker 0: ")


def test_a_restart_is_of_the_whole_gang(
    room: Room, agreed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "FIRST_PAUSE", 0.05)
    mark = tmp_path / "mark"
    code = agreed + f"m = pathlib.Path({str(mark)!r}); print('begun', flush=True)\n"
    code += "if m.exists(): sys.exit(0)\n"
    code += "say(n); hear(0) if n else time.sleep(600); m.touch(); sys.exit(1)"
    job = room.submit(code, workers=2, strategy="multiworker", retries=1)
    ended = room.until(job, JobState.done)
    assert (ended.attempt, ended.failures, ended.note) == (2, 1, "")
    assert [room.output(job, number) for number in (0, 1)] == [["begun"] * 2] * 2
    assert [room.runtime.poll(f"job-{job}-{number}").attempt for number in (0, 1)] == [2, 2]


def test_with_ps_the_chiefs_end_is_the_gangs(room: Room, agreed: str) -> None:
    code = agreed + "print('begun', flush=True); say(n); hear(1, 2, 3) if n == 0 else time.sleep(600)"
    job = room.submit(code, workers=2, strategy="ps", cpus=2)
    ended = room.until(job, JobState.done)
    assert ended.exit_status == 0 and not room.running()
    assert [room.output(job, number) for number in range(4)] == [["begun"]] * 4


def test_stopping_and_a_timeout_are_of_all(room: Room) -> None:
    job = room.submit(SLEEPS, workers=2, strategy="multiworker", retries=3)
    room.until(job, JobState.running)
    room.jobs.ask_to_stop(job, "bob", actor="bob")
    assert "bob" in room.until(job, JobState.stopped).note and not room.running()
    job = room.submit(SLEEPS, workers=2, strategy="multiworker", timeout=0.3, retries=3)
    ended = room.until(job, JobState.failed)
    assert (ended.reason, ended.attempt) == ("timeout", 1) and not room.running()


def test_a_member_that_cannot_start_ends_the_gang(room: Room, tmp_path: Path) -> None:
    def without_the_second(job, leases):  # type: ignore[no-untyped-def]
        specs = make_specs(job, leases)
        return [specs[0], replace(specs[1], command=("no-such-program",))]

    room.worker = Worker(room.jobs, room.runtime, CAPACITY, without_the_second)
    job = room.submit(SLEEPS, workers=2, strategy="multiworker", retries=3)
    ended = room.until(job, JobState.failed)
    assert ended.reason == "cannot-start" and ended.note.startswith("worker 1: ") and "no-such-program" in ended.note
    assert not room.running() and room.jobs.leases() == []


@pytest.mark.parametrize("started", [0, 1, 2])
def test_a_gang_whose_start_was_interrupted_is_started_whole(room: Room, tmp_path: Path, started: int) -> None:
    """As kill -9 of the daemon leaves it: all claimed, some of its tasks started."""
    job = room.submit(NUMBER + "print('once', flush=True); time.sleep(0.5)", workers=2, strategy="multiworker")
    held = [Lease(f"job-{job}-{number}", "ada", 1, 1) for number in range(2)]
    assert room.jobs.claim(job, held, [1, 2])
    for spec in make_specs(room.jobs.get(job), held)[:started]:
        room.runtime.start(spec)
    with Room(tmp_path) as later:
        assert later.until(job, JobState.done).attempt == 1
        assert [later.output(job, number) for number in (0, 1)] == [["once"], ["once"]]
        assert later.jobs.leases() == []


def test_one_of_which_a_part_has_failed_before_the_rest_started_is_ended(room: Room, tmp_path: Path) -> None:
    job = room.submit(NUMBER + "sys.exit(3)", workers=2, strategy="multiworker")
    held = [Lease(f"job-{job}-{number}", "ada", 1, 1) for number in range(2)]
    assert room.jobs.claim(job, held, [1, 2])
    room.runtime.start(make_specs(room.jobs.get(job), held)[0])
    wait_for(lambda: not room.running(), timeout=10, what="its end")
    with Room(tmp_path) as later:
        ended = later.until(job, JobState.failed)
        assert ended.note.startswith("worker 0: ") and later.jobs.leases() == []
        assert later.runtime.poll(f"job-{job}-1").state == TaskState.absent


def test_a_worker_of_an_attempt_that_half_began_is_of_the_next_one(room: Room) -> None:
    """The tasks have been started a different number of times; each attempt has all of them all the same."""
    job = room.submit(NUMBER + "print('begun', flush=True); time.sleep(0.4)", workers=2, strategy="multiworker")
    held = [Lease(f"job-{job}-{number}", "ada", 1, 1) for number in range(2)]
    room.jobs.claim(job, held, [1, 2])
    room.runtime.start(make_specs(room.jobs.get(job), held)[0])
    room.runtime.stop(f"job-{job}-0", grace=0)
    first = room.jobs.get(job)
    lost = ends.End(JobState.failed, "lost")
    room.jobs.again(first, lost, CAPACITY, not_before=0.0, failures=1)
    ended = room.until(job, JobState.done)
    assert ended.attempt == 2 and room.output(job, 1) == ["begun"]
    assert room.runtime.poll(f"job-{job}-1").attempt == 2


def test_brought_down_it_is_lost_and_not_the_failure_of_one(room: Room, agreed: str, tmp_path: Path) -> None:
    code = agreed + "hear('down') if n == 0 else time.sleep(600); sys.exit(1)"
    job = room.submit(code, workers=2, strategy="multiworker")
    room.until(job, JobState.running)
    room.worker.pause()
    room.runtime.stop(f"job-{job}-1", grace=0)
    (tmp_path / "said/down").touch()
    wait_for(lambda: not room.running(), timeout=30, what="the other's end")
    with Room(tmp_path) as later:
        ended = later.until(job, JobState.failed)
        assert ended.reason == "lost" and "worker" not in ended.note


def test_what_can_never_fit_names_the_workers_that_do() -> None:
    each = Need(2, 1)
    with pytest.raises(Exception, match="6 CPUs") as told:
        ledger.refuse_never(CAPACITY, each, each, each)
    assert "--workers 2" in told.value.remedy  # type: ignore[attr-defined]
    assert ledger.fit_all(CAPACITY, (), needs(Strategy.ps, 2, each)) is not None, "a chief takes no worker's place"


def test_a_gang_ends_with_its_output_in_one_view(room: Room) -> None:
    job = room.submit(NUMBER + "print('a'); print('b'); time.sleep(0.2)", workers=2, strategy="multiworker")
    room.until(job, JobState.running)
    assert sorted(Output(room.runtime, job).follow()) == ["[0] a", "[0] b", "[1] a", "[1] b"]
    room.until(job, JobState.done)
    assert list(Output(room.runtime, job).lines(tail=1)) == ["[0] b", "[1] b"]
    assert list(Output(room.runtime, job, 1).lines()) == ["a", "b"]


def test_each_attempt_is_followed_once(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "FIRST_PAUSE", 0.05)
    job = room.submit("print('one'); print('two'); raise SystemExit(1)", retries=1)
    wait_for(lambda: room.jobs.get(job).attempt == 1 or room.worker.step() is None, timeout=10, what="its start")
    output = Output(room.runtime, job)
    wait_for(lambda: room.runtime.poll(f"job-{job}").started_at, timeout=10, what="its first start")
    assert list(output.follow()) == ["one", "two"]
    room.until(job, JobState.failed)
    assert list(output.follow()) == ["one", "two"] and len(list(output.lines())) == 4
