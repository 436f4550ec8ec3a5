"""Files replaced in one step, and locks that tell who holds them: with real kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ailab import files
from ailab.waiting import wait_for

HOLD = """
import os, sys, fcntl
os.umask(0o077)
held = open(sys.argv[1], "w")
fcntl.flock(held, fcntl.LOCK_EX)
held.write(str(os.getpid())); held.flush()
__import__("signal").pause()
"""


def names(folder: Path) -> list[str]:
    return [one.name for one in folder.iterdir()]


def test_a_file_keeps_its_mode_its_link_and_its_bytes(tmp_path: Path) -> None:
    path, link = tmp_path / "real" / "lab.toml", tmp_path / "lab.toml"
    path.parent.mkdir()
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    files.replace(link, "new \udcff\r\n")
    assert link.is_symlink() and path.read_bytes() == b"new \xff\r\n" and path.stat().st_mode & 0o777 == 0o640
    files.replace(path, "secret", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600 and names(path.parent) == ["lab.toml"]


def test_what_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        files.replace(path, "\ud800")
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    child = os.fork()
    if child == 0:
        os.fsync = lambda _descriptor: os.kill(os.getpid(), signal.SIGKILL)
        files.replace(path, "new")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert path.read_text() == "old" and len(names(tmp_path)) == 2
    files.clear_unfinished(path)
    assert names(tmp_path) == ["file"]


def test_work_folders_that_kills_left_go_after_a_day(tmp_path: Path) -> None:
    parent = tmp_path / "work"
    with files.work_folder(parent) as first:
        (first / "file").touch()
        for name, age in (("yesterday", 2 * 86400), ("now", 60)):
            (parent / name).mkdir()
            os.utime(parent / name, (0, time.time() - age))
        with files.work_folder(parent) as second:
            assert sorted(names(parent)) == sorted(["now", first.name, second.name])
    assert names(parent) == ["now"]


def test_a_link_is_there_at_every_moment(tmp_path: Path) -> None:
    link = tmp_path / "current"
    for target in ("one", "two"):
        files.replace_link(link, tmp_path / target)
        assert link.readlink() == tmp_path / target and names(tmp_path) == ["current"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff", None])
def test_json_that_cannot_be_read_is_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "file").write_bytes(text.encode("latin-1"))
    assert files.read_json(tmp_path / "file") is None


def test_a_lock_is_held_as_long_as_its_holder_lives(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not files.is_locked(path) and not path.exists() and files.holder(path) is None
    process = subprocess.Popen([sys.executable, "-c", HOLD, path])
    wait_for(lambda: files.holder(path) is not None, timeout=20, what="the lock to be held")
    assert files.is_locked(path) and files.holder(path) == process.pid
    with files.locked_if_free(path) as free:
        assert not free
    process.kill()
    process.wait()
    assert not files.is_locked(path) and files.holder(path) is None and path.read_text() == str(process.pid)
    with files.locked_if_free(path) as free:
        assert free and files.is_locked(path)
    with files.locked(path, shared=True), files.locked(path, shared=True):
        assert path.read_text() == str(process.pid), "a lock's file is never emptied"
