"""A full disk, one without inodes and a read-only one are named as such, with sizes, wherever the fault shows."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from small_disk import SmallDisk, small_disk
from sqlalchemy import text

from ailab import disk, files
from ailab.cli import main
from ailab.client import error_from
from ailab.command import CommandFailed, Finished
from ailab.daemon.app import answer_errors
from ailab.daemon.disk_answers import name_full_disks
from ailab.daemon.status import stopped_status
from ailab.errors import AilabError, DiskFull, NotFound, NotRunning, ReadOnlyDisk, UsageError
from ailab.lab import Lab
from ailab.paths import LabPaths, MachinePaths
from ailab.settings import Settings
from ailab.store import Store
from ailab.waiting import interrupted_by

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "small", 4, files=64) as made:
        yield made


@pytest.fixture
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AILAB_LANG", "en")


# What tools print, as seen.
SAID = [
    "error: Failed to install: x.whl\n  Caused by: failed to copy to /home/l/x: No space left on device (os error 28)",
    "write /var/lib/docker/tmp/x: no space left on device",
    "npm error code ENOSPC\nnpm error syscall write",
    "fatal: unable to write new index file: Disk quota exceeded",
    "fallocate failed: Disk quota exceeded (os error 122)",
    "sqlite3.OperationalError: database or disk is full",
    "Error: [Errno 2] No usable temporary directory found in ['/tmp', '/var/tmp', '/']",
]


@pytest.mark.parametrize("said", SAID)
def test_what_tools_say_of_it_is_understood(tmp_path: Path, said: str) -> None:
    failed = CommandFailed("uv failed with status 2.", finished=Finished(("uv",), 2, "", said))
    told = disk.explain(failed, [tmp_path])
    assert isinstance(told, DiskFull) and said in told.detail
    assert "MB free" in told.message and "du -xh" in told.remedy


def test_other_faults_are_left_alone(tmp_path: Path) -> None:
    for other in (OSError(errno.EIO, "Input/output error"), ValueError("No space left on device"), NotFound("x")):
        assert disk.explain(other, [tmp_path]) is None
    assert isinstance(disk.cause(NotRunning("It does not answer."), [tmp_path]), NotRunning)


def test_it_is_found_in_what_an_error_came_from(tmp_path: Path) -> None:
    try:
        try:
            raise OSError(errno.EDQUOT, "Disk quota exceeded", str(tmp_path / "x"))
        except OSError as error:
            raise RuntimeError("could not save") from error
    except RuntimeError as error:
        assert isinstance(disk.explain(error, []), DiskFull)


@needs_root
@pytest.mark.root
def test_sizes_are_those_of_the_disk_that_is_full(
    small: SmallDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert disk.full_among([tmp_path, small.folder]) is None
    small.fill()
    told = disk.full_among([tmp_path, small.folder / "not" / "there"])
    assert told is not None and f"{small.folder}: 0.0 MB of 4 MB free" in told.message
    assert "env gc" not in told.remedy, "no environments are there"
    monkeypatch.setenv("AILAB_HOME", str(small.folder / "home"))
    told = disk.full_among([small.folder])
    assert told is not None and "ailab env gc" in told.remedy
    lab = Lab(LabPaths(small.folder), MachinePaths(small.folder), Settings())
    assert str(small.folder) in stopped_status(lab)["note"]
    small.free()
    small.use_up_files()
    told = disk.full_among([small.folder])
    assert told is not None and f"{small.folder}: 0 of 64 inodes" in told.message and "--inodes" in told.remedy
    # What failed of itself, failed because of it; what the person got wrong did not.
    assert isinstance(disk.cause(NotRunning("It does not answer."), [small.folder]), DiskFull)
    assert isinstance(disk.cause(UsageError("There is no such option."), [small.folder]), UsageError)


@needs_root
@pytest.mark.root
def test_databases_temporary_files_and_read_only_disks(
    small: SmallDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(small.folder / "lab.db").open()
    small.fill()
    with pytest.raises(Exception) as refused, store.engine.begin() as connection:
        connection.execute(text("CREATE TABLE more AS SELECT randomblob(1000000) AS x"))
    told = disk.explain(refused.value, [tmp_path, small.folder])
    assert isinstance(told, DiskFull) and str(small.folder) in told.message
    with pytest.raises(OSError) as refused:
        files.replace(small.folder / "note", "x" * 10000)
    assert isinstance(disk.explain(refused.value, [tmp_path]), DiskFull)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(small.folder)])
    with pytest.raises(OSError) as refused:
        tempfile.mkdtemp()
    told = disk.explain(refused.value, [tmp_path, small.folder])
    assert isinstance(told, DiskFull) and str(small.folder) in told.message
    small.free()
    store.engine.dispose()
    small.make_read_only()
    with pytest.raises(OSError) as refused:
        files.replace(small.folder / "note", "x")
    assert isinstance(disk.explain(refused.value, [tmp_path]), ReadOnlyDisk)
    with sqlite3.connect(small.folder / "lab.db") as connection, pytest.raises(sqlite3.Error) as wrong:
        connection.execute("CREATE TABLE more (x)")
    assert isinstance(disk.explain(wrong.value, [small.folder]), ReadOnlyDisk)


@needs_root
@pytest.mark.root
def test_commands_name_it_and_find_no_bug(
    small: SmallDisk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], english: None
) -> None:
    monkeypatch.setenv("AILAB_HOME", str(small.folder))

    failures = [OSError(errno.ENOSPC, "x"), RuntimeError("x"), NotRunning("x"), AilabError("Internal Server Error")]
    command = Mock(side_effect=[*failures, failures[0]])
    monkeypatch.setattr(main, "build_app", lambda _first: command)
    small.fill()
    for _failure in failures:
        assert main.run(["status"]) == 1
        said = capsys.readouterr().err
        assert "The disk is full." in said and str(small.folder) in said and "bug" not in said
    assert main.run(["status", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "disk-full"


@needs_root
@pytest.mark.root
def test_the_api_answers_507(small: SmallDisk) -> None:
    lab = Lab(LabPaths(small.folder), MachinePaths(small.folder), Settings())
    app = FastAPI()
    answer_errors(app)
    name_full_disks(app, lab)

    @app.get("/write")
    def write() -> None:
        files.replace(small.folder / "note", "x" * 10000)

    @app.get("/wait")
    def wait() -> None:
        raise NotRunning("The hub does not answer.")

    @app.get("/other")
    def other() -> None:
        raise OSError(errno.EIO, "Input/output error")

    client = TestClient(app, raise_server_exceptions=False)
    assert client.get("/write").status_code == 200 and client.get("/wait").status_code == 503
    small.fill()
    for page in ("/write", "/wait"):
        answer = client.get(page)
        assert answer.status_code == 507 and isinstance(error_from(answer.content), DiskFull)
    small.free()
    assert client.get("/other").status_code == 500


@needs_root
@pytest.mark.root
def test_a_wait_ends_when_the_disk_is_full(small: SmallDisk) -> None:
    never = threading.Event()
    filling = threading.Timer(0.3, small.fill)
    filling.start()
    with pytest.raises(DiskFull), interrupted_by(lambda: disk.full_among([small.folder]), every=0.1):
        never.wait(20)
    filling.join()
