"""What a training has reported, as it comes into MLflow: whatever the file is, once, and after any kill."""

from __future__ import annotations

import fcntl
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from ailab.errors import NotRunning
from ailab.jobs.model import JobRequest
from ailab.jobs.progress import Point, Progress
from ailab.jobs.queue import Job
from ailab.paths import LabPaths
from ailab.tracking.api import Refused
from ailab.tracking.described import Tracked, experiment_of, job_run
from ailab.tracking.reported import PART_BYTES, key_of, points_after, read_part
from ailab.tracking.trainings import training_runs
from ailab.tracking.writer import Writer


def line(**document: Any) -> str:
    return json.dumps(document) + "\n"


class Server:
    """MLflow's side: what it was told; `dies_after` requests the next one finds it gone, but has reached it."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.dies_after = -1

    def _told(self) -> None:
        self.dies_after -= 1
        if self.dies_after == -1:
            raise NotRunning("gone")

    def experiment(self, name: str) -> str:
        return name

    def find_run(self, experiment: str, tag: str, value: str) -> str | None:
        return next((run for run, known in self.runs.items() if known["tags"].get(tag) == value), None)

    def create_run(self, experiment: str, name: str, user: str, started: float, tags: dict[str, str]) -> str:
        run = f"run{len(self.runs)}"
        self.runs[run] = {"tags": dict(tags), "params": {}, "metrics": set(), "status": "RUNNING"}
        self._told()
        return run

    def log(self, run: str, *, metrics: list[dict[str, Any]], params: dict[str, str], tags: dict[str, str]) -> None:
        known = self.runs[run]
        if any(known["params"].get(name, value) != value for name, value in params.items()):
            raise Refused("a parameter stays what it is")
        known["params"] |= params
        known["tags"] |= tags
        known["metrics"] |= {(one["key"], one["step"], one["timestamp"], one["value"]) for one in metrics}
        self._told()

    def set_status(self, run: str, status: str, ended: float | None) -> None:
        self.runs[run]["status"] = status
        self._told()


def training(tmp_path: Path, status: str = "RUNNING", **more: Any) -> Tracked:
    return Tracked(
        "job-1", ("ailab.job", "1"), "ada/x", "x", "ada", 1.0, status, tmp_path / "training.jsonl", **more
    )  # fmt: skip


def writer(server: Any, tmp_path: Path) -> Writer:
    (tmp_path / "runs").mkdir(exist_ok=True)
    return Writer(server, tmp_path / "runs")


def test_what_comes_later_is_added_and_the_end_closes_it(tmp_path: Path) -> None:
    server, one = Server(), training(tmp_path, tags={"ailab.seed": "7"}, params={"args.rate": "0.1"})
    one.training.write_text(line(fit=1, params={"epochs": "2"}) + line(t=1.0, epoch=1, metrics={"loss": 0.5}))
    assert not writer(server, tmp_path).write(one).is_closed
    with one.training.open("a") as sink:
        sink.write(line(t=2.0, epoch=2, metrics={"loss": "NaN"}) + line(fit=2, params={"epochs": "9"}) + '{"torn')
    written = writer(server, tmp_path).write(training(tmp_path, "FINISHED", tags=one.tags, params=one.params))
    assert written.is_closed
    (run,) = server.runs.values()
    assert run["metrics"] == {("loss", 1, 1000, 0.5), ("loss", 2, 2000, "NaN")}
    assert run["params"] == {"epochs": "2", "args.rate": "0.1"}
    assert run["tags"]["ailab.seed"] == "7" and run["status"] == "FINISHED"


@pytest.mark.parametrize("kill", range(7))
def test_a_kill_between_any_two_requests_loses_nothing_and_makes_no_second_run(tmp_path: Path, kill: int) -> None:
    server, one = Server(), training(tmp_path, "FAILED", tags={"ailab.seed": "7"})
    epochs = [line(t=float(epoch), epoch=epoch, metrics={"loss": 1 / epoch}) for epoch in range(1, 1500)]
    one.training.write_text(line(fit=1, params={"epochs": "1500"}) + "".join(epochs))
    server.dies_after = kill
    try:
        writer(server, tmp_path).write(one)
    except NotRunning:
        writer(server, tmp_path).write(one)
    (run,) = server.runs.values()
    assert len(run["metrics"]) == 1499 and run["status"] == "FAILED" and run["params"]["epochs"] == "1500"


def test_a_run_that_was_deleted_is_left_alone(tmp_path: Path) -> None:
    server, one = Server(), training(tmp_path)
    one.training.write_text(line(fit=1, params={"epochs": "2"}))
    writer(server, tmp_path).write(one)
    next(iter(server.runs.values()))["params"]["rate"] = "0.1"
    with one.training.open("a") as sink:
        sink.write(line(fit=2, params={"rate": "0.2"}))
    assert writer(server, tmp_path).write(one).is_closed


def test_the_job_finds_its_run_and_no_link_of_its_own_leads_us_elsewhere(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    note = tmp_path / "run.json"
    one = training(tmp_path, note=note)
    writer(Server(), tmp_path).write(one)
    assert json.loads(note.read_text()) == {"experiment": "ada/x", "run": "run0"}
    note.unlink()
    note.with_name(".run.json.new").symlink_to(precious)
    writer(Server(), tmp_path).write(one)
    assert note.exists() and precious.read_text() == "mine"


def test_a_file_that_is_none_and_lines_that_are_none_are_passed_over(tmp_path: Path) -> None:
    assert read_part(tmp_path / "missing", 0).metrics == []
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert read_part(tmp_path / "pipe", 0).offset == read_part(tmp_path / "link", 0).offset == 0
    path = tmp_path / "training.jsonl"
    path.write_text(
        "[]\nnull\n{\n" + line(metrics=3, params=[], t="x", epoch=None) + line(t=1, epoch=1, metrics={"a": []})
    )
    part = read_part(path, 0)
    assert part.offset == path.stat().st_size and not part.metrics and not part.params
    path.write_text("x" * (PART_BYTES + 10) + "\n" + line(t=1, epoch=1, metrics={"a": 2}))
    first = read_part(path, 0)
    assert first.more and first.offset == PART_BYTES
    assert read_part(path, first.offset).metrics[0]["value"] == 2


def test_progress_without_keras_comes_by_its_steps() -> None:
    points = (
        Point(1.0, 1, 2, 10, 100, {"loss": 0.5}),
        Point(2.0, 2, 2, 50, 100, {"loss": math.inf}),
        Point(3.0, 2, 2, None, None, {"val": 1.0}),
        Point(9.5, None, None, None, None, {"odd name!": 1.0}),
    )
    found = points_after(Progress(points), 0.0)
    assert [(one["key"], one["step"]) for one in found] == [("loss", 10), ("loss", 150), ("val", 2), ("odd name_", 8)]
    assert found[1]["value"] == "Infinity"
    assert points_after(Progress(points), 2.0) == found[2:] and points_after(None, 0.0) == []


@pytest.mark.parametrize(
    ("name", "key"),
    [("val/loss", "val/loss"), ("../x", "x"), ("x/../y", "x/__/y"), ("损失", "损失"), ("a\n", "a_"), ("..", "")],
)
def test_names_are_ones_that_mlflow_takes(name: str, key: str) -> None:
    assert key_of(name) == key


def test_a_job_as_a_run(tmp_path: Path) -> None:
    request = JobRequest(("python", "train.py", "--rate=0.1", "data"), str(tmp_path / "notebooks/mnist"))
    snapshot = {"command": list(request.command), "cwd": request.cwd, "code": "c" * 64, "seed": 7, "gpus": ["A", "A"]}
    times = {"submitted_at": 1.0, "not_before": 0.0, "started_at": 2.0, "ended_at": 3.0}
    nothing: dict[str, Any] = dict.fromkeys(Job.__dataclass_fields__)
    told = {"id": 3, "name": "x", "owner": "ada", "state": "failed", "reason": "exit-status", "note": "", "attempt": 2}
    job = Job(**{**nothing, **told, **times, "request": request, "snapshot": snapshot})
    run = job_run(job, tmp_path / "3", tmp_path)
    assert (run.experiment, run.status, run.ended) == ("ada/notebooks/mnist", "FAILED", 3.0)
    assert run.params == {"args.rate": "0.1", "args.1": "data"}
    assert run.tags["ailab.gpus"] == "A, A" and run.tags["ailab.attempt"] == "2" and run.tags["mlflow.user"] == "ada"
    assert experiment_of("ada", Path("/elsewhere/cats"), tmp_path) == "ada/cats"
    assert experiment_of("ada", tmp_path, tmp_path) == "ada"


def test_a_notebooks_training_runs_as_long_as_its_process_holds_the_lock(tmp_path: Path) -> None:
    lab = LabPaths(tmp_path)
    lab.trainings.mkdir(parents=True)
    path = lab.trainings / "training-abc.jsonl"
    path.write_text(line(training={"name": "mnist #1", "user": "ada", "folder": str(tmp_path / "notebooks"), "t": 5.0}))
    for name in ("training-../x.jsonl", "other.jsonl", "training-empty.jsonl"):
        (lab.trainings / name.replace("/", "_")).write_text("")
    (lab.trainings / "training-link.jsonl").symlink_to(path)
    with path.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        (run,) = training_runs(lab)
        assert (run.status, run.user, run.experiment, run.started) == ("RUNNING", "ada", "ada/notebooks", 5.0)
    assert training_runs(lab)[0].status == "KILLED"
    with path.open("a") as sink:
        sink.write(line(t=1.0, ended="done"))
    assert training_runs(lab)[0].status == "FINISHED"


def test_whose_container_it_is_not_the_file_says_whose_training_it_is(tmp_path: Path) -> None:
    lab = LabPaths(tmp_path)
    theirs = LabPaths(lab.workspaces / "bob").trainings
    theirs.mkdir(parents=True)
    (theirs / "training-abc.jsonl").write_text(line(training={"user": "ada", "folder": "/lab/notebooks", "t": 5.0}))
    (run,) = training_runs(lab)
    assert (run.user, run.experiment) == ("bob", "bob/notebooks")
    elsewhere = tmp_path / "elsewhere"
    theirs.rename(elsewhere)
    theirs.symlink_to(elsewhere)
    assert training_runs(lab) == []
