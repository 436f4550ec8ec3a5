"""Locks: nobody else can open one, a wait for one ends, and says who holds it."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import CHECKOUT, reachable_folder

from ailab import files, lock_holders
from ailab.environments.halves import remove_open_locks
from ailab.environments.uv import Uv
from ailab.errors import Conflict
from ailab.paths import MachinePaths
from ailab.settings import MirrorsSection

HOLD = """
import fcntl, os, sys
held = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
# Takes the lock, hands it to a child, and ends: as a build that is killed while uv goes on.
HAND_ON = """
import fcntl, os, subprocess, sys
held = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(held, fcntl.LOCK_EX)
subprocess.Popen(["sleep", "60"], pass_fds=[held], stdout=subprocess.DEVNULL)
print("held", flush=True)
"""


@contextmanager
def held(path: Path, *, uid: int | None = None, code: str = HOLD) -> Iterator[int]:
    """The lock at `path`, held by another process (of the account `uid`); its pid."""
    become = [] if uid is None else ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    words = [*become, sys.executable, "-c", code, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process.pid
        finally:
            process.kill()


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_lock_is_made_for_its_account_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with files.locked(tmp_path / "one"), files.locked_if_free(tmp_path / "two"):
            assert mode(tmp_path / "one") == mode(tmp_path / "two") == 0o600
    finally:
        os.umask(before)


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"), files.locked(tmp_path / "lock"):
        pass
    assert not (tmp_path / "other").exists()


def test_a_wait_tells_who_holds_it_and_ends(tmp_path: Path) -> None:
    path, told = tmp_path / "lock", list[str]()
    with files.locked(path):
        pass
    with held(path) as pid, pytest.raises(Conflict) as refused, files.locked(path, timeout=1.5, tell=told.append):
        pass
    me = pwd.getpwuid(os.geteuid()).pw_name
    for text in (*told, refused.value.message):
        assert f"process {pid} (" in text and me in text and str(path) in text
    assert len(told) == 1 and f"kill {pid}" in refused.value.remedy and "1.5 s" in refused.value.message


def test_who_does_not_pass_a_voice_is_told_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(files, "_tell_waits", files._silent)
    files.tell_waits(told.append)
    with files.locked(tmp_path / "lock"), pytest.raises(Conflict), files.locked(tmp_path / "lock", timeout=1.1):
        pass
    assert len(told) == 1 and str(os.getpid()) in told[0]


def test_a_short_wait_is_not_told_of(tmp_path: Path) -> None:
    path, told = tmp_path / "lock", list[str]()
    path.touch(0o600)
    with held(path) as pid:
        os.kill(pid, 9)
        with files.locked(path, timeout=20, tell=told.append):
            assert not told


def test_a_lock_that_a_killed_holder_s_program_has_inherited(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch(0o600)
    with held(path, code=HAND_ON) as starter:
        descriptor = os.open(path, os.O_RDONLY)
        os.waitid(os.P_PID, starter, os.WEXITED | os.WNOWAIT)
        (holder,) = lock_holders.find(descriptor)
        os.close(descriptor)
        assert holder.pid != starter and "sleep 60" in str(holder)
        os.kill(holder.pid, 9)
    with files.locked(path, timeout=10):
        pass


def test_a_lock_that_others_could_open_is_replaced_but_not_under_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    path.chmod(0o644)
    before = path.stat().st_ino
    with held(path), files.locked_if_free(path) as free:
        assert not free and path.stat().st_ino == before, "a process of ours may have it from an earlier ailab"
    with files.locked(path, timeout=5):
        assert mode(path) == 0o600 and path.stat().st_ino != before
    assert [one.name for one in tmp_path.iterdir()] == ["lock"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another account")
def test_another_account_can_hold_nothing() -> None:
    """An old lock, which it has opened and holds; and a new one, which it cannot open."""
    nobody = pwd.getpwnam("nobody").pw_uid
    with reachable_folder() as folder:
        path = folder / "lock"
        path.touch()
        path.chmod(0o644)
        with held(path, uid=nobody):
            for _time in range(2):
                with files.locked(path, timeout=5):
                    assert mode(path) == 0o600
            os.seteuid(nobody)
            try:
                with pytest.raises(PermissionError):
                    os.open(path, os.O_RDONLY)
            finally:
                os.seteuid(0)


@pytest.mark.parametrize(
    ("line", "pids"),
    [
        ("1: FLOCK  ADVISORY  WRITE 4711 08:01:77 0 EOF", [4711]),
        ("1: FLOCK  ADVISORY  READ  4711 00:2f:77 0 EOF", [4711]),
        ("1: -> FLOCK  ADVISORY  WRITE 4712 08:01:77 0 EOF", []),
        ("2: POSIX  ADVISORY  WRITE 4711 08:01:77 0 EOF", []),
        ("3: FLOCK  ADVISORY  WRITE 4711 08:02:77 0 EOF", []),
        ("3: FLOCK  ADVISORY  WRITE 4711 08:01:78 0 EOF", []),
        ("", []),
    ],
)
def test_a_line_of_proc_locks(line: str, pids: list[int]) -> None:
    file = os.stat_result((0, 77, os.makedev(8, 1), 1, 0, 0, 0, 0, 0, 0))
    assert list(lock_holders._holding(line, file)) == pids


@contextmanager
def launched(home: Path) -> Iterator[subprocess.Popen[str]]:
    """The launcher of this checkout at its first start with `home`, where its index does not answer."""
    variables = {"PATH": os.environ["PATH"], "HOME": str(home), "AILAB_HOME": str(home), "AILAB_LANG": "en"}
    with subprocess.Popen(
        [CHECKOUT / "ailab", "--version"],
        env=variables | {"AILAB_PYPI": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"},
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)


def test_the_launcher_says_for_whom_it_waits(tmp_path: Path) -> None:
    lock = tmp_path / "control/.lock"
    lock.parent.mkdir()
    lock.touch(0o600)
    with held(lock) as pid:
        lock.write_text(str(pid))
        with launched(tmp_path) as process:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert "waiting for it" in line and f"process {pid} (" in line and sys.executable in line


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another account")
def test_the_launcher_waits_for_no_other_account() -> None:
    with reachable_folder() as home:
        lock = home / "control/.lock"
        lock.parent.mkdir()
        lock.touch()
        lock.chmod(0o644)
        with held(lock, uid=pwd.getpwnam("nobody").pw_uid), launched(home) as process:
            assert process.stderr is not None and "Fetching uv" in process.stderr.readline()
            assert mode(lock) == 0o600 and mode(home / "control/install.log") == 0o600
            assert process.wait(60) == 1, "its index does not answer"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="root's programs")
@pytest.mark.parametrize("weak", ["home", "control"])
def test_root_runs_no_launcher_s_programs_that_another_account_could_change(weak: str) -> None:
    with reachable_folder() as folder:
        home = folder / "home"
        (home / "control/current/bin").mkdir(parents=True)
        program = home / "control/current/bin/python"
        program.write_text(f"#!/bin/sh\ntouch {folder}/run\n")
        program.chmod(0o755)
        place = home if weak == "home" else home / "control"
        nobody = pwd.getpwnam("nobody").pw_uid
        os.chown(place, nobody, nobody)
        with launched(home) as process:
            assert process.stderr is not None
            said = process.stderr.read()
            assert process.wait(30) == 1 and f"can change {place}" in said and "What to do" in said
        os.chown(place, 0, 0)
        place.chmod(0o775)
        with launched(home) as process:
            assert process.wait(30) == 1
        assert not (folder / "run").exists()


def test_the_open_locks_of_an_earlier_ailab_go(tmp_path: Path) -> None:
    machine = MachinePaths(tmp_path)
    old = [machine.generations / ".one.lock", machine.generations / "one/.lock", machine.tools / ".lock"]
    kept = [machine.generations / ".one.pin", machine.generations / "two/.lock"]
    for path in (*old, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.chmod(0o600 if path == kept[1] else 0o666)
    remove_open_locks(machine)
    assert not any(path.exists() for path in old) and all(path.exists() for path in kept)


def test_the_locks_of_a_cache_that_was_open_are_made_again(tmp_path: Path) -> None:
    """Another account may hold them since then; uv makes them where they are missing."""
    locks = [tmp_path / "cache/uv/.lock", tmp_path / "cache/uv/wheels-v9/pypi/six/six.lock"]
    package = tmp_path / "cache/uv/archive-v0/x/some/yarn.lock"
    for path in (*locks, package):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    uv = Uv(MachinePaths(tmp_path), MirrorsSection())
    uv.run("cache", "dir")
    assert not any(path.exists() for path in locks) and package.exists()
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    locks[0].touch()
    uv.run("cache", "dir")
    assert locks[0].exists(), "once is enough"
