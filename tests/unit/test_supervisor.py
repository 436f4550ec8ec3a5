"""Reconciling: what should run and what does, with a real store and a real runtime."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ailab import events
from ailab.daemon.supervisor import Supervisor, pause_after
from ailab.errors import NotFound
from ailab.runtimes.base import Seen, TaskSpec, TaskState
from ailab.runtimes.process import ProcessRuntime
from ailab.store import Store
from ailab.waiting import wait_for

SLEEP = "import time; time.sleep(600)"


def spec(code: str = SLEEP, *, restart: bool = True) -> TaskSpec:
    return TaskSpec(
        id="one",
        name="one",
        kind="service",
        command=(sys.executable, "-c", code),
        environment={"PATH": os.defpath},
        cwd="/",
        restart=restart,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "lab.db").open()


@pytest.fixture
def supervisor(tmp_path: Path, store: Store) -> Iterator[Supervisor]:
    made = Supervisor(store, ProcessRuntime(tmp_path / "tasks"))
    yield made
    made.stop_all()
    made.close()


def test_what_ends_is_started_again(supervisor: Supervisor) -> None:
    first = supervisor.want(spec(), owner="", actor="test")
    assert first.state == TaskState.running and first.pid is not None
    os.kill(first.pid, 9)

    def again() -> bool:
        supervisor.reconcile()
        seen = supervisor.task("one").seen
        return seen.state == TaskState.running and seen.attempt == 2

    wait_for(again, timeout=10, what="the second attempt")


def test_stopping_and_starting_the_lab_is_no_failure(tmp_path: Path, store: Store) -> None:
    """Each `up` is a new daemon: what the last `down` stopped starts at once, however often that happens."""
    runtime = ProcessRuntime(tmp_path / "tasks")
    for _attempt in range(5):
        lab = Supervisor(store, runtime)
        lab.want(spec(), owner="", actor="test")
        lab.reconcile()
        wait_for(lambda: runtime.poll("one").state == TaskState.running, timeout=2, what="the next start")
        lab.stop_all()
        lab.close()
    assert runtime.poll("one").attempt == 5


def test_what_is_to_run_once_runs_once(supervisor: Supervisor, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    supervisor.want(spec(f"open({str(mark)!r}, 'a').write('x')", restart=False), owner="", actor="test")

    def forgotten() -> bool:
        supervisor.reconcile()
        return supervisor.tasks() == []

    wait_for(forgotten, timeout=10, what="the task to be forgotten")
    assert mark.read_text() == "x"
    supervisor.want(spec(f"open({str(mark)!r}, 'a').write('y')", restart=False), owner="", actor="test")
    wait_for(lambda: mark.read_text() == "xy", timeout=10, what="the second wish")


def test_unwanted_means_stopped_and_forgotten(supervisor: Supervisor, store: Store) -> None:
    supervisor.want(spec(), owner="", actor="test")
    assert supervisor.unwant("one", actor="test").state == TaskState.exited
    with pytest.raises(NotFound):
        supervisor.task("one")
    assert [event["after"] for event in events.newest(store, 10)][::-1][0] == "wanted"
    assert supervisor.unwant("nobody", actor="test").state == TaskState.absent


class Interrupted(ProcessRuntime):
    """Somebody changes their mind while a task is being started: after it was looked up, before it runs."""

    meanwhile: Callable[[], object] | None = None

    def start(self, spec: TaskSpec) -> Seen:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            other = threading.Thread(target=meanwhile)
            other.start()
            other.join(10)
            assert not other.is_alive()
        return super().start(spec)


def test_who_wants_it_otherwise_while_it_is_being_started_gets_that(tmp_path: Path, store: Store) -> None:
    runtime = Interrupted(tmp_path / "tasks")
    supervisor, other = Supervisor(store, runtime), spec("import time; time.sleep(601)")
    runtime.meanwhile = lambda: supervisor.want(other, owner="", actor="test")
    supervisor.want(spec(), owner="", actor="test")

    def runs_other() -> bool:
        supervisor.reconcile()
        started = runtime.spec("one") if runtime.poll("one").state == TaskState.running else None
        return started is not None and started.command == other.command

    wait_for(runs_other, timeout=10, what="the second specification to run")
    supervisor.stop_all()
    supervisor.close()


def test_who_takes_it_back_while_it_is_being_started_leaves_nothing_behind(tmp_path: Path, store: Store) -> None:
    runtime = Interrupted(tmp_path / "tasks")
    supervisor = Supervisor(store, runtime)
    runtime.meanwhile = lambda: supervisor.unwant("one", actor="test")
    supervisor.want(spec(), owner="", actor="test")
    assert supervisor.tasks() == [] and runtime.poll("one").state == TaskState.exited
    supervisor.close()


def test_a_running_task_keeps_its_specification_a_stopped_one_gets_the_new(supervisor: Supervisor) -> None:
    supervisor.want(spec(), owner="", actor="test")
    supervisor.revise(lambda one: replace(one, cpus=1))
    assert supervisor.task("one").spec.cpus == 0
    supervisor.stop_all()
    supervisor.revise(lambda one: replace(one, cpus=1))
    assert supervisor.task("one").spec.cpus == 1


def test_failures_are_followed_by_growing_pauses() -> None:
    assert [pause_after(failures) for failures in range(9)] == [0, 0, 1, 2, 4, 8, 10, 10, 10]
