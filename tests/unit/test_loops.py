"""The daemon's loops survive whatever fails, their own reporting included, and say so: real threads, a real store."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from broken_store import BrokenStore, full
from job_room import Room
from patients import a_lab

from ailab import bringup, events
from ailab.access.users import Users
from ailab.attempts import Attempts, KeyedPool
from ailab.daemon import loop as loop_module
from ailab.daemon.job_loop import job_loop
from ailab.daemon.loop import Concern, Loop, Loops, LoopState, recorder
from ailab.daemon.loops import loops_of
from ailab.daemon.mlflow_service import MlflowService
from ailab.daemon.parts import Parts
from ailab.daemon.status import Measured, is_well, overall
from ailab.daemon.supervisor import Supervisor
from ailab.jobs.model import JobRequest, JobState
from ailab.jobs.queue import Jobs
from ailab.jobs.worker import Worker
from ailab.lab import Lab
from ailab.resources.ledger import Capacity
from ailab.runtimes.base import Seen, TaskSpec, TaskState
from ailab.runtimes.process import ProcessRuntime
from ailab.waiting import wait_for

FAILURES = (
    MemoryError(),
    sqlite3.OperationalError("disk I/O error"),
    sqlite3.OperationalError("database or disk is full"),
    sqlite3.OperationalError("database is locked"),
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    RuntimeError("can't start new thread"),
    SystemExit(1),
)


@pytest.fixture
def store(tmp_path: Path) -> BrokenStore:
    return BrokenStore(tmp_path / "lab.db").open()  # type: ignore[return-value]


@pytest.fixture
def leaving() -> Iterator[threading.Event]:
    made = threading.Event()
    yield made
    made.set()


def told(store: BrokenStore) -> list[tuple[str, str]]:
    return [(one["subject"], one["after"]) for one in events.newest(store, 100)[::-1] if one["kind"] == "loop"]


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_a_loop_goes_on_after_any_failure(store: BrokenStore, leaving: threading.Event, failure: BaseException) -> None:
    """The step fails, and so does writing the event of that."""
    steps = []

    def step() -> None:
        steps.append(1)
        if store.failure is not None:
            raise failure

    looping = Loop("loop", [Concern("step", step, every=0.01)], leaving, recorder(store))
    store.failure = failure
    looping.start()
    wait_for(lambda: looping.state == LoopState.failing, timeout=5, what="the loop to say that it fails")
    (fault,) = looping.to_json()["faults"]
    assert fault["what"] == "loop/step" and type(failure).__name__ in fault["error"]
    store.failure = None
    wait_for(lambda: looping.state == LoopState.running, timeout=5, what="the loop to go on")
    assert not looping.to_json()["faults"] and told(store)[-1] == ("loop", "recovered")


def test_one_concern_that_fails_keeps_no_other_from_running(store: BrokenStore, leaving: threading.Event) -> None:
    done: list[str] = []

    def fails() -> None:
        raise MemoryError

    concerns = [Concern("bad", fails), Concern("good", lambda: done.append("good"))]  # type: ignore[func-returns-value]
    looping = Loop("loop", concerns, leaving, recorder(store))
    looping.turn()
    assert done == ["good"] and [fault["what"] for fault in looping.to_json()["faults"]] == ["loop/bad"]


def test_the_pause_after_a_failure_grows_and_is_short_enough(store: BrokenStore) -> None:
    now, pauses = [1000.0], []
    tried = Attempts("work", clock=lambda: now[0])
    for _time in range(8):
        tried.failed(MemoryError())
        pauses.append(tried.not_before - now[0])
    assert pauses == [0.5, 1, 2, 4, 5, 5, 5, 5]
    tried.succeeded()
    tried.failed(MemoryError())
    assert tried.not_before - now[0] == 0.5


def test_a_fault_that_lasts_is_two_events_and_one_traceback(
    store: BrokenStore, caplog: pytest.LogCaptureFixture
) -> None:
    write = recorder(store)
    concern = Concern("step", lambda: None)
    concern.watched_by("loop", write)
    for _time in range(50):
        concern.attempts.failed(sqlite3.OperationalError("disk I/O error"))
    concern.attempts.succeeded()
    assert told(store) == [("loop", "failed"), ("loop", "recovered")]
    lines = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert len(lines) == 1 and lines[0].exc_info is not None


def test_a_thread_that_ended_is_started_again(store: BrokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    leaving, steps = threading.Event(), []
    loops = Loops()
    one = Loop("loop", [Concern("step", lambda: steps.append(1), every=0.01)], leaving, recorder(store))  # type: ignore[func-returns-value]
    with monkeypatch.context() as broken:
        broken.setattr(Loop, "_run", lambda self: None)
        loops.start([one])
        one.join(5)
    assert loops.to_json()[0]["state"] == "dead" and not is_well({"loops": loops.to_json(), "faults": []})
    store.failure = full()
    loops.look()
    store.failure = None
    wait_for(lambda: steps, timeout=5, what="the loop to work again")
    assert loops.to_json()[0]["state"] == "running"
    leaving.set()
    loops.join(5)


def test_a_step_that_does_not_end_is_reported(store: BrokenStore, caplog: pytest.LogCaptureFixture) -> None:
    leaving, goes_on = threading.Event(), threading.Event()
    loops = Loops()
    step = Concern("step", lambda: goes_on.wait(10) and None)
    loops.start([Loop("loop", [step], leaving, recorder(store), stuck_after=0.05)])
    wait_for(lambda: loops.to_json()[0]["state"] == "stuck", timeout=5, what="the loop to be stuck")
    loops.look()
    (fault,) = loops.to_json()[0]["faults"]
    assert fault["what"] == "loop/step" and ("loop", "stuck") in told(store)
    assert "goes_on.wait" in caplog.text, "where it is"
    leaving.set()
    goes_on.set()
    loops.join(5)


def test_the_state_of_the_lab_says_it() -> None:
    services = [{"kind": "service", "state": "running", "attempt": 1}]
    assert overall(services, hub_answers=True, is_well=True) == "ready"
    assert overall(services, hub_answers=True, is_well=False) == "degraded"


class Shop:
    """A lab's daemon, without its pages: its parts and its loops on a store that can break."""

    def __init__(self, root: Path) -> None:
        lab = Lab.open(a_lab(root).root)
        self.store = BrokenStore(lab.paths.database)
        self.store.open()
        lab.__dict__["store"] = self.store
        jobs, supervisor = Jobs(self.store), Supervisor(self.store, lab.runtime)
        worker = Worker(jobs, lab.runtime, Capacity(2, 2**33), self.make_specs)
        mlflow = MlflowService(lab, supervisor)
        self.parts = Parts(lab, supervisor, Users(self.store), Measured(lab), jobs, worker, mlflow)

    def make_specs(self, job: object, leases: object) -> list[TaskSpec]:
        number, attempt = job.id, job.attempt  # type: ignore[attr-defined]
        environment = {"PATH": os.defpath}
        command = job.request.command  # type: ignore[attr-defined]
        return [TaskSpec(f"job-{number}", "job", "job", command, environment, "/", restart=False, attempt=attempt)]

    def submit(self, code: str) -> int:
        request = JobRequest((sys.executable, "-c", code), "/")
        return self.parts.jobs.submit([request], owner="ada", actor="ada")[0]

    def ends(self) -> list[str]:
        ends = (JobState.done, JobState.failed, JobState.stopped)
        return [
            one["subject"] for one in events.newest(self.store, 200) if one["kind"] == "job" and one["after"] in ends
        ]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path / "lab")
    yield made
    made.parts.leave()
    made.parts.loops.join(5)
    made.parts.worker.close()
    made.parts.supervisor.stop_all()
    made.parts.supervisor.close()


def test_jobs_go_on_once_a_full_disk_has_room(shop: Shop, tmp_path: Path) -> None:
    """One job runs while the store fails, and ends; one waits. Each ends once, neither runs twice."""
    mark = tmp_path / "mark"
    shop.parts.loops.start(loops_of(shop.parts))
    code = f"import os, time; mark = {str(mark)!r}; open(mark, 'a').write('x')\n"
    code += "while not os.path.exists(mark + '.go'): time.sleep(0.02)"
    first = shop.submit(code)
    wait_for(lambda: mark.exists(), timeout=10, what="the first job to run")
    second = shop.submit(f"open({str(mark)!r}, 'a').write('y')")
    shop.store.failure = full()
    Path(f"{mark}.go").touch()
    full_disk = "database or disk is full"
    wait_for(lambda: full_disk in str(shop.parts.health()["faults"]), timeout=10, what="the daemon to say what fails")
    shop.store.failure = None
    began = time.monotonic()
    for job in (first, second):
        wait_for(lambda job=job: shop.parts.jobs.get(job).state == JobState.done, timeout=15, what=f"job {job}")
    wait_for(lambda: is_well(shop.parts.health()), timeout=15 - (time.monotonic() - began), what="all to be well")
    assert sorted(shop.ends()) == ["job-1", "job-2"] and mark.read_text() == "xy"


def test_a_schedule_that_fails_keeps_no_job_from_running(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("future")

    monkeypatch.setattr("ailab.jobs.schedules.submit_due", broken)
    job = shop.submit("pass")
    shop.parts.loops.start([job_loop(shop.parts)])
    wait_for(lambda: shop.parts.jobs.get(job).state == JobState.done, timeout=10, what="the job")
    assert [fault["what"] for fault in shop.parts.health()["faults"]] == ["jobs/schedules"]


class Refusing(ProcessRuntime):
    """Cannot start anything as long as there is a failure."""

    failure: BaseException | None = None
    tries = 0

    def start(self, spec: TaskSpec) -> Seen:
        self.tries += 1
        if self.failure is not None:
            raise self.failure
        return super().start(spec)


def sleeper() -> TaskSpec:
    return TaskSpec("one", "one", "service", (sys.executable, "-c", "import time; time.sleep(600)"), {}, "/")


def test_a_task_that_cannot_be_started_says_why_and_is_not_tried_all_the_time(
    tmp_path: Path, store: BrokenStore, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = Refusing(tmp_path / "tasks")
    supervisor = Supervisor(store, runtime)
    runtime.failure = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        supervisor.want(sleeper(), owner="", actor="test")

    def until(reached: Callable[[], object]) -> None:
        wait_for(lambda: (supervisor.reconcile(), reached())[1], timeout=10, what="the supervisor", first=0.01)

    until(lambda: supervisor.task("one").error)
    assert "No space left" in supervisor.task("one").to_json()["note"] and supervisor.faults()
    tries = runtime.tries
    for _time in range(30):
        supervisor.reconcile()
    assert runtime.tries <= tries + 1, "there is a pause"
    wait_for(lambda: "No space left" in caplog.text, timeout=10, what="the log")
    runtime.failure = None
    until(lambda: supervisor.task("one").seen.state == TaskState.running)
    until(lambda: not supervisor.faults())
    assert not supervisor.task("one").to_json()["note"]
    supervisor.stop_all()
    supervisor.close()


def test_a_fault_is_over_once_the_task_runs_whoever_has_started_it(tmp_path: Path, store: BrokenStore) -> None:
    runtime = Refusing(tmp_path / "tasks")
    supervisor = Supervisor(store, runtime)
    runtime.failure = OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(OSError, match="error"):
        supervisor.want(sleeper(), owner="", actor="test")
    wait_for(lambda: (supervisor.reconcile(), supervisor.faults())[1], timeout=10, what="the fault", first=0.01)
    wait_for(lambda: not supervisor._beside.is_busy("one"), timeout=10, what="the attempt to end", first=0.01)
    runtime.failure = None
    supervisor.want(replace(sleeper(), environment={"TOKEN": "another"}), owner="", actor="hub")
    assert supervisor.task("one").seen.state == TaskState.running
    wait_for(lambda: (supervisor.reconcile(), not supervisor.faults())[1], timeout=10, what="no fault", first=0.01)
    supervisor.stop_all()
    supervisor.close()


def test_a_stop_that_fails_is_tried_again_before_a_task_is_replaced(tmp_path: Path, store: BrokenStore) -> None:
    runtime = Refusing(tmp_path / "tasks")
    supervisor = Supervisor(store, runtime)
    supervisor.want(sleeper(), owner="", actor="test")
    stops, stop = [], runtime.stop

    def failing_once(task_id: str, **more: Any) -> Seen:
        stops.append(task_id)
        if len(stops) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return stop(task_id, **more)

    runtime.stop = failing_once  # type: ignore[method-assign]
    supervisor.replace(replace(sleeper(), environment={"TOKEN": "another"}), reason="test")

    def is_replaced() -> bool:
        supervisor.reconcile()
        runs_as = runtime.spec("one")
        return runs_as is not None and runs_as.environment == {"TOKEN": "another"} and not supervisor.faults()

    wait_for(is_replaced, timeout=15, what="the task to be replaced", first=0.01)
    supervisor.stop_all()
    supervisor.close()


def test_work_is_not_lost_when_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    done, recorded = [], []
    pool = KeyedPool("work", 2, lambda *words: recorded.append(words))
    with monkeypatch.context() as broken:
        broken.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("can't start")))
        assert not pool.begin("a", lambda: done.append("a"))
        assert not pool.is_busy("a") and "can't start" in pool.error("a")
    wait_for(lambda: pool.begin("a", lambda: done.append("a")), timeout=5, what="the pause to end")
    wait_for(lambda: done, timeout=5, what="the work")
    pool.close()
    assert done == ["a"], "once, though the executor had it twice"
    assert [(one[0], one[1]) for one in recorded] == [("a", "failed"), ("a", "recovered")]


def test_one_job_that_cannot_be_judged_keeps_no_other_from_ending(tmp_path: Path) -> None:
    with Room(tmp_path) as room:
        bad, good = room.submit("import time; time.sleep(600)"), room.submit("pass")
        for job in (bad, good):
            room.until(job, JobState.running, JobState.done)
        poll = room.runtime.poll

        def broken(task: str) -> Seen:
            if task == f"job-{bad}":
                raise MemoryError
            return poll(task)

        room.runtime.poll = broken  # type: ignore[method-assign]

        def ended() -> bool:
            with pytest.raises(MemoryError):
                room.worker.step()
            return room.jobs.get(good).state == JobState.done

        wait_for(ended, timeout=10, what="the good job to end")
        assert "MemoryError" in room.worker.error(bad)
        room.runtime.poll = poll  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("state", "is_lost"), [("running", False), ("failing", False), ("dead", True), ("stuck", True)]
)
def test_up_replaces_a_daemon_whose_loops_have_ended(state: str, is_lost: bool) -> None:
    assert bringup._has_lost_loops({"loops": [{"name": "jobs", "state": state}]}) is is_lost
    assert loop_module.STUCK_SECONDS > 30, "a loop on a machine that has much to do is not stuck"
