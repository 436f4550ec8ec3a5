"""What grows is bounded: which files of jobs, events, code and folders go, and what stays; a real store and folders."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from patients import a_lab
from sqlalchemy import insert, text

from ailab import events
from ailab.access.users import Users
from ailab.cli.logs import logs
from ailab.daemon import housekeeping
from ailab.daemon.housekeeping import DAY, Housekeeping
from ailab.daemon.job_views import one_job
from ailab.daemon.mlflow_service import MlflowService
from ailab.daemon.parts import Parts
from ailab.daemon.status import Measured
from ailab.daemon.supervisor import Supervisor
from ailab.errors import NotFound
from ailab.jobs.code_store import Batch, CodeStore, Row
from ailab.jobs.model import After, JobRequest
from ailab.jobs.queue import Jobs
from ailab.jobs.worker import Worker
from ailab.lab import Lab
from ailab.resources.ledger import Capacity
from ailab.store import events as event_table

MIB = 2**20


class House:
    """A lab with jobs that ended some days ago, each with a file of so many bytes."""

    def __init__(self, root: Path, settings: str = "") -> None:
        self.paths = a_lab(root)
        if settings:
            with self.paths.settings.open("a") as file:
                file.write(settings)
        lab = Lab.open(self.paths.root)
        self.store = lab.store.open()
        self.jobs, supervisor = Jobs(self.store), Supervisor(self.store, lab.runtime)
        worker = Worker(self.jobs, lab.runtime, Capacity(2, 2**33), lambda *_: [])
        mlflow = MlflowService(lab, supervisor)
        self.parts = Parts(lab, supervisor, Users(self.store), Measured(lab), self.jobs, worker, mlflow)
        self.keeper = Housekeeping(self.parts)

    def job(self, days: float | None, size: int = MIB, **more: object) -> int:
        """One that ended so many days ago; None: that runs."""
        (job,) = self.jobs.submit([JobRequest(("true",), "/", **more)], owner="ada", actor="ada")  # type: ignore[arg-type]
        state = "running" if days is None else "done"
        ended = None if days is None else time.time() - days * DAY
        with self.store.engine.begin() as connection:
            values = {"state": state, "ended": ended, "id": job}
            connection.execute(text("UPDATE jobs SET state = :state, ended_at = :ended WHERE id = :id"), values)
        folder = self.paths.jobs / str(job) / "checkpoints"
        folder.mkdir(parents=True)
        (folder / "model").write_bytes(b"x" * size)
        task = self.paths.tasks / f"job-{job}"
        task.mkdir(parents=True)
        (task / "spec.json").write_text(json.dumps({"spec": {}, "attempt": 1}))
        (task / "exit.json").write_text(json.dumps({"attempt": 1}))
        (task / "log").write_text("hello\n")
        return job

    def kept(self) -> list[int]:
        return sorted(int(one.parent.parent.name) for one in self.paths.jobs.glob("*/checkpoints/model"))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    yield House(tmp_path / "lab")


def test_files_of_old_jobs_go_and_the_jobs_say_so(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    old, young, live = house.job(91), house.job(89), house.job(None)
    house.keeper.remove_old_files()
    assert house.kept() == [young, live]
    assert not (house.paths.tasks / f"job-{old}").exists() and (house.paths.tasks / f"job-{live}").exists()
    shown = one_job(house.parts, old)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert shown["files_removed"]["why"] == "age" and today in shown["note"]
    assert one_job(house.parts, young)["files_removed"] is None
    (told,) = [one for one in events.newest(house.store, 50) if one["kind"] == "files"]
    assert (told["subject"], told["after"]) == (f"job-{old}", "removed")
    house.keeper.remove_old_files()
    assert len([one for one in events.newest(house.store, 50) if one["kind"] == "files"]) == 1

    class Client:
        def get(self, _path: str) -> object:
            return shown

    monkeypatch.setattr(Lab, "client", Client())
    monkeypatch.setattr("ailab.cli.labs.open_lab", lambda: house.parts.lab)
    with pytest.raises(NotFound, match=today) as refused:
        logs(str(old), following=False, tail=None)
    assert f"ailab rerun {old}" in refused.value.remedy


def test_the_oldest_go_while_they_take_too_much(tmp_path: Path) -> None:
    house = House(tmp_path / "lab", '[jobs]\nkeep_size = "5m"\n')
    jobs = [house.job(days, 2 * MIB) for days in (5, 4, 3, 2)]
    fresh, live = house.job(0, 9 * MIB), house.job(None, 9 * MIB)
    house.keeper.remove_old_files()
    assert house.kept() == [*jobs[2:], fresh, live], "neither what has just ended nor what runs"
    assert one_job(house.parts, jobs[0])["files_removed"]["why"] == "size"


def test_what_a_job_that_waits_comes_after_stays(house: House) -> None:
    first = house.job(91)
    house.job(None, after=(After(first),))
    house.keeper.remove_old_files()
    assert first in house.kept()


def test_what_a_kill_left_half_removed_is_removed_the_next_time(house: House) -> None:
    job = house.job(10)
    (house.paths.jobs / str(job) / "removed.json").write_text('{"at": "2026-01-01", "why": "size"}')
    house.keeper.remove_old_files()
    assert house.kept() == [] and one_job(house.parts, job)["files_removed"]["at"] == "2026-01-01"


def test_a_folder_that_a_job_has_closed_goes_too(house: House) -> None:
    job = house.job(91)
    (house.paths.jobs / str(job) / "checkpoints").chmod(0)
    house.keeper.remove_old_files()
    assert house.kept() == []


def test_no_file_goes_while_a_job_that_waits_cannot_be_read(house: House, caplog: pytest.LogCaptureFixture) -> None:
    old, bad = house.job(91), house.job(None)
    with house.store.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET request = 'garbage' WHERE id = :id"), {"id": bad})
    house.keeper.remove_old_files()
    house.keeper.collect_code()
    assert old in house.kept() and f"jobs {bad}" in caplog.text


def test_a_job_that_was_forgotten_is_named_with_the_date(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "KEPT_JOBS", 1)
    old, new = house.job(91), house.job(91)
    house.keeper.forget_old_jobs()
    assert not (house.paths.jobs / str(old)).exists() and house.jobs.get(new)
    with pytest.raises(NotFound, match=f"{datetime.now(UTC):%Y-%m-%d}"):
        house.jobs.get(old)
    with pytest.raises(NotFound, match="There is no job 99"):
        house.jobs.get(99)


def test_events_are_bounded_by_count_and_by_age(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "KEPT_EVENTS", 1500)
    long_ago = {"at": "2020-01-01T00:00:00.000+00:00", "actor": "x", "kind": "old", "subject": "x", "detail": {}}
    with house.store.engine.begin() as connection:
        connection.execute(insert(event_table), [long_ago] * 10)
        connection.execute(insert(event_table), [long_ago | {"at": events.now(), "kind": "new"}] * 4000)
    house.keeper.remove_old_events()
    found = events.newest(house.store, 10_000)
    assert len(found) == 1500 and {one["kind"] for one in found} == {"new"}


def test_empty_folders_of_ended_jobs_go(house: House, tmp_path: Path) -> None:
    ended, written, live = house.job(1), house.job(1), house.job(None)
    for job in (ended, written, live):
        (house.paths.logs / "jobs" / str(job)).mkdir(parents=True)
    (house.paths.logs / "jobs" / str(written) / "events.out.tfevents.1").touch()
    house.keeper.remove_empty_logs()
    assert sorted(one.name for one in (house.paths.logs / "jobs").iterdir()) == sorted(map(str, (written, live)))
    (tmp_path / "elsewhere" / str(ended)).mkdir(parents=True)
    (house.paths.logs / "jobs").rename(tmp_path / "moved")
    (house.paths.logs / "jobs").symlink_to(tmp_path / "elsewhere")
    house.keeper.remove_empty_logs()
    assert (tmp_path / "elsewhere" / str(ended)).exists(), "no link is followed"


def test_reports_that_nobody_takes_go(house: House) -> None:
    house.paths.trainings.mkdir()
    old, new = (house.paths.trainings / f"training-{name}.jsonl" for name in "ab")
    for file in (old, new):
        file.write_text("{}\n")
    past = time.time() - 91 * DAY
    os.utime(old, (past, past))
    house.keeper.remove_old_trainings()
    assert not old.exists() and new.exists()


def test_code_that_a_job_names_stays_and_other_code_goes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CodeStore(house.paths.snapshots)

    def added(content: bytes) -> str:
        with store.working() as folder:
            batch = Batch(store, folder)
            code = batch.add_tree([Row("train.py", "100644", batch.add(content))])
            batch.finish()
        return code

    named, other = added(b"named"), added(b"other")
    house.jobs.note_snapshot(house.job(1), {"code": named})
    house.keeper.collect_code()
    assert store.tree(other), "a job that names it may be about to be written down"
    monkeypatch.setattr("ailab.jobs.code_store.YOUNG_SECONDS", -60.0)
    house.keeper.collect_code()
    assert store.tree(named)
    with pytest.raises(NotFound):
        store.tree(other)
