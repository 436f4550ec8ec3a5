"""No other account can hold a lock of a lab that is in use: each of them is tried, uv's and the launcher's as well."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CommandLine

pytestmark = [
    pytest.mark.lab,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="becomes another account"),
]
_NAMES = ("lock", "starting", "noting", "following")


def lock_files(*folders: Path) -> Iterator[Path]:
    """What is called a lock, and what is one now."""
    held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    now = {int(words[5].split(":")[2]) for words in held if words[1] == "FLOCK"}
    for folder in folders:
        for inside, below, names in os.walk(folder):
            # What packages bring is nobody's lock.
            below[:] = [name for name in below if name not in ("site-packages", "node_modules")]
            for name in names:
                path = Path(inside, name)
                seen = path.lstat()
                is_called_so = name in _NAMES or (name.endswith(".lock") and name not in ("lab.lock", "uv.lock"))
                if stat.S_ISREG(seen.st_mode) and (is_called_so or seen.st_ino in now):
                    yield path


def held_by_another(paths: list[Path], uid: int) -> list[str]:
    """Those that an account of no lab can open, and so hold."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        for path in paths:
            for way in (os.O_RDONLY, os.O_WRONLY):
                try:
                    descriptor = os.open(path, way | os.O_NONBLOCK)
                except OSError:
                    continue
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                os.write(writing, f"{path}\n".encode())
                os.close(descriptor)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        found = told.read().splitlines()
    os.waitpid(child, 0)
    return found


def test_no_other_account_can_hold_a_lock(science: CommandLine) -> None:
    science.run("env", "gc", "--dry-run")
    science.run("env", "list")
    home = Path(science.environment["AILAB_HOME"])
    paths = list(lock_files(home, science.lab, science.paths.run))
    assert {"labs.lock", "daemon.lock", "up.lock", ".lock"} <= {path.name for path in paths}
    assert held_by_another(paths, 54321) == []
    # Those of other programs, as uv's and Podman's, are in closed folders.
    theirs = [home / name for name in ("cache", "control", "home")]
    ours = [path for path in paths if not any(path.is_relative_to(folder) for folder in theirs)]
    assert [str(path) for path in ours if path.stat().st_mode & 0o777 != 0o600] == []
