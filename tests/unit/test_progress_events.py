"""A loss that is NaN, or a stall, is an event of the lab: once in each attempt, whichever daemon sees it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from patients import a_lab

from ailab import events
from ailab.access.users import Users
from ailab.cli.events import _why
from ailab.daemon.mlflow_service import MlflowService
from ailab.daemon.parts import Parts
from ailab.daemon.progress_events import ProgressEvents
from ailab.daemon.status import Measured
from ailab.daemon.supervisor import Supervisor
from ailab.i18n import use_language
from ailab.jobs.model import JobRequest
from ailab.jobs.queue import Jobs
from ailab.jobs.worker import Worker
from ailab.lab import Lab
from ailab.resources.ledger import Capacity, Lease


class Training:
    """A job that runs, as far as the store knows, and what its script reports."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.patch = root, monkeypatch
        self.parts = self.wired()
        jobs = self.parts.jobs
        (self.job,) = jobs.submit([JobRequest(("true",), "/")], owner="li", actor="li")
        jobs.claim(self.job, [Lease(f"job-{self.job}", "li", 1, 1)])
        self.started = time.time()
        jobs.started(self.job, self.started)
        self.file = self.parts.lab.paths.jobs / str(self.job) / "progress.jsonl"
        self.file.parent.mkdir(parents=True)
        self.watch = ProgressEvents(self.parts)

    def wired(self) -> Parts:
        lab = Lab.open(self.root)
        store = lab.store.open()
        jobs, supervisor = Jobs(store), Supervisor(store, lab.runtime)
        worker = Worker(jobs, lab.runtime, Capacity(4, 2**33), lambda *_: None)  # type: ignore[arg-type,return-value]
        return Parts(lab, supervisor, Users(store), Measured(lab), jobs, worker, MlflowService(lab, supervisor))

    def report(self, at: float, **metrics: object) -> None:
        with self.file.open("a") as sink:
            sink.write(json.dumps({"t": at, "epoch": 1, "epochs": 10, "metrics": metrics}) + "\n")

    def look(self, now: float) -> list[tuple[str, str]]:
        """What events there are after a look at `now`, the oldest first."""
        self.patch.setattr(time, "time", lambda: now)
        self.watch.look()
        found = [one for one in events.newest(self.parts.lab.store, 50)[::-1] if one["kind"] == "progress"]
        return [(one["after"], _why(one)) for one in found]


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    return Training(a_lab(tmp_path / "lab").root, monkeypatch)


def test_each_trouble_is_told_once(training: Training) -> None:
    start = training.started
    training.report(start + 1, loss=0.5, mae=1.0)
    assert training.look(start + 2) == []
    training.report(start + 3, loss="NaN")
    assert training.look(start + 4) == [("nan", "loss is nan")]
    training.report(start + 5, loss="NaN", mae="Infinity")
    assert training.look(start + 6) == [("nan", "loss is nan"), ("nan", "mae is inf")]
    told = [("nan", "loss is nan"), ("nan", "mae is inf"), ("stalled", "silent for 20 min")]
    assert training.look(start + 5 + 20 * 60) == told
    assert training.look(start + 5 + 90 * 60) == told


def test_a_daemon_that_comes_after_does_not_tell_it_again(training: Training) -> None:
    training.report(training.started + 1, loss="NaN")
    training.look(training.started + 2)
    training.watch = ProgressEvents(training.wired())
    assert training.look(training.started + 3) == [("nan", "loss is nan")]


def test_what_an_attempt_before_has_left_is_not_told_of_this_one(training: Training) -> None:
    training.report(training.started - 5, loss="NaN")
    assert training.look(training.started + 3600) == []


def test_in_the_readers_language(training: Training) -> None:
    training.report(training.started + 1, loss="NaN")
    try:
        use_language("zh")
        assert training.look(training.started + 2) == [("nan", "loss 为 nan")]
    finally:
        use_language(None)
