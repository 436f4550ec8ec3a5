"""When a task that has lost something is started anew: the decision, with a real store, tasks and a server that tells
how long nothing has happened."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_stand_in import Server, opened
from patients import a_lab

from ailab import events
from ailab.access import activity
from ailab.daemon.healing import LOOK_SECONDS, Healing
from ailab.daemon.supervisor import IDLE_SECONDS, Supervisor
from ailab.errors import AilabError
from ailab.paths import LabPaths
from ailab.runtimes.base import TaskSpec, Usage
from ailab.runtimes.process import ProcessRuntime
from ailab.runtimes.reasons import GPUS_LOST
from ailab.store import Store

NAME = "workspace-li"


class Frail(ProcessRuntime):
    """Whose tasks have lost their GPUs until they are started again, and use as much CPU as it is told."""

    cpu_seconds = 0.0
    lost_in = 1

    def fault(self, task_id: str) -> str | None:
        return GPUS_LOST if self.poll(task_id).attempt <= self.lost_in else None

    def usage(self, task_id: str) -> Usage:
        return Usage(self.cpu_seconds)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


@pytest.fixture
def paths(tmp_path: Path) -> LabPaths:
    return a_lab(tmp_path / "lab")


class Ward:
    """A workspace that runs, its healing, and a clock that the test turns."""

    def __init__(self, paths: LabPaths, port: int, kind: str = "workspace") -> None:
        self.time = 0.0
        self.store = Store(paths.database).open()
        self.runtime = Frail(paths.tasks)
        self.supervisor = Supervisor(self.store, self.runtime)
        self.healing = Healing(paths, self.runtime, self.supervisor, lambda: self.time)
        command = (sys.executable, "-c", "import time; time.sleep(600)")
        spec = TaskSpec(NAME, NAME, kind, command, {"PATH": os.defpath}, cwd="/", ports=(port,))
        self.supervisor.want(spec, owner="li", actor="test")

    def look(self, times: int = 1) -> int:
        """Look so often, and tell in which attempt the workspace is then."""
        for _time in range(times):
            self.time += LOOK_SECONDS
            self.healing.heal()
        return self.supervisor.task(NAME).seen.attempt

    def told(self) -> list[str]:
        return [event["after"] for event in events.newest(self.store, 20) if event["subject"] == NAME][::-1]


@pytest.fixture
def ward(paths: LabPaths, server: Server) -> Iterator[Ward]:
    made = Ward(paths, server.port)
    yield made
    made.supervisor.stop_all()
    made.supervisor.close()


def test_a_workspace_with_nothing_open_is_started_anew(ward: Ward) -> None:
    assert ward.look() == 1, "whether it computes is not known yet"
    task = ward.supervisor.task(NAME)
    assert task.fault == GPUS_LOST and "15 minutes" in task.to_json()["note"]
    assert ward.look() == 2
    assert ward.look(3) == 2, "it has its GPUs again"
    assert ward.supervisor.task(NAME).to_json()["fault"] is None
    told = ward.told()
    assert told[told.index("faulty") :] == ["faulty", "restarting", "exited", "running"]


@pytest.mark.parametrize(
    ("kernels", "terminals", "attempt"),
    [
        ([(IDLE_SECONDS + 60,)], [], 2),
        ([(IDLE_SECONDS + 60,)], [(IDLE_SECONDS + 60,)], 2),
        ([(IDLE_SECONDS - 60,)], [], 1),
        ([(IDLE_SECONDS + 60,)], [(5,)], 1),
        ([(IDLE_SECONDS + 60, "busy")], [], 1),
        ([(IDLE_SECONDS + 60, "busy"), (IDLE_SECONDS + 60,)], [], 1),
    ],
    ids=["idle", "idle terminal", "used lately", "terminal used lately", "computes", "one of two computes"],
)
def test_one_in_which_somebody_works_is_left(
    ward: Ward, server: Server, kernels: list[Any], terminals: list[Any], attempt: int
) -> None:
    # The moments are of now, not of when the tests were collected.
    server.kernels, server.terminals = ([opened(*one) for one in some] for some in (kernels, terminals))
    assert ward.look(3) == attempt
    assert ward.told().count("faulty") == 1


def test_what_computes_unseen_by_the_server_is_left(ward: Ward) -> None:
    for second in (30, 60, 90):
        ward.runtime.cpu_seconds = second
        assert ward.look() == 1
    assert ward.look() == 2, "it has ended"


def test_a_server_that_does_not_tell_is_left(ward: Ward, server: Server) -> None:
    server.status = 503
    assert ward.look(3) == 1


def test_of_other_tasks_nobody_knows_when_they_rest(paths: LabPaths, server: Server) -> None:
    job = Ward(paths, server.port, kind="job")
    try:
        assert job.look(3) == 1
        assert job.supervisor.task(NAME).fault == GPUS_LOST
    finally:
        job.supervisor.stop_all()
        job.supervisor.close()


def test_what_comes_back_by_itself_is_no_fault_any_more(ward: Ward, server: Server) -> None:
    server.kernels = [opened(0)]
    ward.look()
    ward.runtime.lost_in = 0
    ward.look()
    assert ward.supervisor.task(NAME).fault is None


def test_idleness_as_the_server_tells_it(paths: LabPaths, server: Server) -> None:
    address = f"127.0.0.1:{server.port}"
    assert activity.idle_seconds(paths, address, "li") == float("inf")
    server.kernels = [opened(100), opened(40)]
    assert 40 <= activity.idle_seconds(paths, address, "li") < 60
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(AilabError):
        activity.idle_seconds(paths, address, "li")
