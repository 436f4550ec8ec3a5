"""An idle workspace's GPU goes to a job that waits, and comes back: real tasks and a real store, of a machine whose
GPUs are a list, with a server that tells how long nothing has happened and a clock that the test turns."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jupyter_stand_in import SOCKET, Server, opened
from patients import a_lab

from ailab import events
from ailab.access.users import Users
from ailab.daemon import workspace_leases
from ailab.daemon.idle_gpus import LOOK_SECONDS, IdleGpus
from ailab.daemon.mlflow_service import MlflowService
from ailab.daemon.parts import Parts
from ailab.daemon.status import Measured
from ailab.daemon.supervisor import Supervisor
from ailab.jobs.model import JobRequest, JobState
from ailab.jobs.queue import Job, Jobs
from ailab.jobs.worker import Worker
from ailab.lab import Lab
from ailab.resources.ledger import Capacity, Gpu, Lease
from ailab.runtimes.base import TaskKind, TaskSpec
from ailab.waiting import wait_for

CAPACITY = Capacity(4, 8 * 2**30, (Gpu("0", 2**34),))
NAME = "workspace-li"
SETTINGS = """
[environment]
stack = "science"
[resources]
own_gpus = 1
gpu_idle_minutes = 15
gpu_notice_minutes = 5
"""
# Each start adds the GPUs that it sees.
SEES = "import os, time; print('sees', os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); time.sleep(600)"


class House:
    """A lab of one GPU, with its daemon's parts; made anew on the same folder it is the daemon after a kill."""

    def __init__(self, root: Path, server: Server) -> None:
        self.root = root
        lab = Lab.open(root)
        self.lab, store = lab, lab.store.open()
        server.answer_for(lab.runtime)
        jobs = Jobs(store)
        worker = Worker(jobs, lab.runtime, CAPACITY, self.make_specs)
        supervisor = Supervisor(store, lab.runtime)
        mlflow = MlflowService(lab, supervisor)
        self.parts = Parts(lab, supervisor, Users(store), Measured(lab), jobs, worker, mlflow)
        self.time = 1000.0
        self.idle = IdleGpus(self.parts, lambda: self.time)

    def make_specs(self, job: Job, leases: Sequence[Lease]) -> list[TaskSpec]:
        (lease,) = leases
        spec = self.spec(lease.task, TaskKind.job, "import time; time.sleep(600)")
        gpus = tuple(gpu for gpu, _share in lease.gpus)
        return [replace(spec, gpus=gpus, restart=False, attempt=job.attempt)]

    def spec(self, name: str, kind: str, code: str) -> TaskSpec:
        command = (sys.executable, "-c", code)
        return TaskSpec(name, name, kind, command, {"PATH": os.defpath}, cwd="/", ports=(SOCKET,), grace=1.0)

    def open_workspace(self) -> None:
        spec = workspace_leases.reserve(self.parts, replace(self.spec(NAME, TaskKind.workspace, SEES), gpus=()), "li")
        self.parts.supervisor.want(spec, owner="li", actor="li")

    def submit(self) -> int:
        return self.parts.jobs.submit([JobRequest(("true",), "/", gpus=1)], owner="ada", actor="ada")[0]

    def turn(self, times: int = 1, seconds: float = LOOK_SECONDS) -> None:
        """What the daemon's loop does, so often."""
        for _time in range(times):
            self.time += seconds
            workspace_leases.settle(self.parts)
            self.parts.worker.plan_soon()
            self.parts.worker.step()
            self.idle.decide()
            assert self.seen_twice() == set()

    def seen_twice(self) -> set[str]:
        """The GPUs that two tasks which run see at once."""
        runtime = self.lab.runtime
        seen: list[str] = []
        for task in runtime.tasks():
            spec = runtime.spec(task)
            if spec is not None and runtime.poll(task).state in ("running", "starting"):
                seen += spec.gpus or ()
        held = [gpu for lease, _since in self.parts.jobs.leases() for gpu, _share in lease.gpus]
        return {gpu for gpu in seen if seen.count(gpu) > 1} | {gpu for gpu in held if held.count(gpu) > 1}

    def sees(self) -> list[str]:
        return [line.removeprefix("sees ").strip() for line in self.lab.runtime.logs(NAME)]

    def note(self) -> str:
        return str(self.parts.supervisor.task(NAME).to_json()["note"])

    def told(self) -> list[str]:
        newest = events.newest(self.lab.store, 50)[::-1]
        return [event["after"] for event in newest if event["subject"] == NAME and "gpus" in event["after"]]

    def until(self, job: int, state: JobState) -> None:
        def reached() -> bool:
            self.turn(seconds=0.0)
            return self.parts.jobs.get(job).state == state

        wait_for(reached, timeout=20, what=f"job {job} to be {state}")

    def close(self) -> None:
        self.parts.worker.close()
        self.parts.supervisor.close()
        for task in self.lab.runtime.tasks():
            self.lab.runtime.stop(task)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


@pytest.fixture
def house(tmp_path: Path, server: Server) -> Iterator[House]:
    made = House(a_lab(tmp_path / "lab", SETTINGS).root, server)
    made.open_workspace()
    yield made
    made.close()


def wait_until_it_sees(house: House, seen: list[str]) -> None:
    wait_for(lambda: house.sees() == seen, timeout=20, what=f"the workspace to see {seen}")


def test_it_goes_to_the_job_after_notice_and_comes_back(house: House, server: Server) -> None:
    server.kernels = [opened(16 * 60)]
    wait_until_it_sees(house, ["0"])
    house.turn(3)
    assert house.told() == [] and house.note() == "", "nobody waits"
    job = house.submit()
    house.turn(3)
    assert house.told() == ["gpus-asked"] and f"Job {job} waits for a GPU" in house.note()
    assert len(house.note()) <= 140, "JupyterLab shows no more"
    assert house.parts.jobs.get(job).state == JobState.queued
    server.kernels = [opened(22 * 60)]
    house.time += 5 * 60
    house.turn()
    assert house.told() == ["gpus-asked", "gpus-lent"] and "Others hold this workspace's GPUs" in house.note()
    server.kernels = []
    wait_until_it_sees(house, ["0", ""])
    house.until(job, JobState.running)
    house.turn(3)
    assert house.sees() == ["0", ""], "the job has it"
    house.parts.jobs.ask_to_stop(job, "ada", actor="ada")
    house.until(job, JobState.stopped)
    house.turn(2)
    wait_until_it_sees(house, ["0", "", "0"])
    house.turn(2)
    assert house.told()[-1] == "gpus-returned" and house.note() == ""


def test_who_comes_back_in_time_keeps_it(house: House, server: Server) -> None:
    server.kernels = [opened(16 * 60)]
    wait_until_it_sees(house, ["0"])
    job = house.submit()
    house.turn(3)
    server.kernels = [opened(0, "busy")]
    house.time += 5 * 60
    house.turn(3)
    assert house.told() == ["gpus-asked", "gpus-kept"] and house.note() == ""
    assert house.sees() == ["0"] and house.parts.jobs.get(job).state == JobState.queued


def test_one_that_starts_while_a_job_has_it_is_opened_without(tmp_path: Path, server: Server) -> None:
    house = House(a_lab(tmp_path / "lab", SETTINGS).root, server)
    try:
        job = house.submit()
        house.until(job, JobState.running)
        house.open_workspace()
        server.kernels = [opened(0, "busy")]
        house.turn(2)
        wait_until_it_sees(house, [""])
        assert "Others hold this workspace's GPUs" in house.note()
        house.parts.jobs.ask_to_stop(job, "ada", actor="ada")
        house.until(job, JobState.stopped)
        house.turn(3)
        assert house.sees() == [""], "nobody is disturbed at work"
        server.kernels = []
        house.turn(2)
        wait_until_it_sees(house, ["", "0"])
    finally:
        house.close()


class Killed(BaseException):
    """As if the daemon were gone at that moment."""


@pytest.mark.parametrize(
    ("place", "after"),
    [("respecify", 0), ("respecify", 1), ("restart", 0), ("restart", 1), ("free", 0), ("free", 1), ("keep_lease", 0),
     ("keep_lease", 1), ("claim", 0), ("note", 1)],
)  # fmt: skip
def test_a_kill_at_any_moment_gives_nothing_twice(house: House, server: Server, place: str, after: int) -> None:
    """The daemon is killed at that call of one of the steps, counted from 0, and the next one goes on."""
    server.kernels = [opened(60 * 60)]
    left = [after]
    target: Any = house.parts.jobs if hasattr(house.parts.jobs, place) else house.parts.supervisor
    real = getattr(target, place)

    def dies(*words: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return real(*words, **more)

    setattr(target, place, dies)
    job = house.submit()
    with pytest.raises(Killed):
        for turn in range(40):
            house.turn(seconds=200.0)
            if turn == 8:
                house.parts.jobs.ask_to_stop(job, "ada", actor="ada")
            time.sleep(0.05)
    house.parts.worker.close()
    house.parts.supervisor.close()
    then = House(house.root, server)
    try:
        for _time in range(8):
            then.turn(seconds=200.0)
        if then.parts.jobs.get(job).state not in (JobState.stopped, JobState.running):
            then.until(job, JobState.running)
        if then.parts.jobs.get(job).state == JobState.running:
            then.parts.jobs.ask_to_stop(job, "ada", actor="ada")
            then.until(job, JobState.stopped)
        server.kernels = []

        def has_it() -> bool:
            then.turn(seconds=200.0)
            return then.sees()[-1:] == ["0"]

        wait_for(has_it, timeout=20, what="the GPU to be back")
    finally:
        then.close()
