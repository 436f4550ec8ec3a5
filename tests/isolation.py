"""Keep tests apart from this machine: a home, a default lab and an account of their own, and root is never given up."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ailab.waiting import wait_for

# How this machine reaches package indexes, and the Pythons that it has; all else in a person's home stays there.
_OF_THE_MACHINE = (".config/pip", ".config/uv", ".pip", ".npmrc", ".pyenv", ".local/share/uv/python")
_FOREIGN = ("AILAB_COMMAND", "AILAB_LAB", "SUDO_USER", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")
_PREFIX = "ailab-check-"
# A folder with a file for each account that this run has made.
_MADE, _MADE_VARIABLE = pytest.StashKey[Path](), "AILAB_CHECK_ACCOUNTS"
_REAL_HOME = Path.home()


def _make_home(folder: Path) -> dict[str, str]:
    """The variables that keep ailab inside `folder`."""
    for name in _OF_THE_MACHINE:
        if (_REAL_HOME / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(_REAL_HOME / name)
    return {"HOME": str(folder), "AILAB_HOME": str(folder / "machine"), "AILAB_DEFAULT_LAB": str(folder / "lab")}


@contextlib.contextmanager
def _isolated(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in _FOREIGN:
            patch.delenv(name, raising=False)
        for name, value in _make_home(folder).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session", autouse=True)
def isolated_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What fixtures that outlive a test see."""
    with _isolated(tmp_path_factory.mktemp("home")):
        yield


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A HOME, an AILAB_HOME and a default lab for each test."""
    with _isolated(tmp_path_factory.mktemp("home")):
        yield


@pytest.fixture(scope="session", autouse=True)
def keeps_privileges() -> Iterator[None]:
    """The process that runs the tests never becomes another account for good; a child that a test forks may. Groups may
    change: root takes an account's for a moment, to read with its rights."""
    ours = os.getpid()

    def guarded(name: str) -> Any:
        real = getattr(os, name)

        def guard(*words: Any) -> Any:
            if os.getpid() == ours:
                pytest.fail(f"os.{name}{words} in the process that runs the tests: every later test would run as that")
            return real(*words)

        return guard

    with pytest.MonkeyPatch.context() as patch:
        for name in ("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid"):
            patch.setattr(os, name, guarded(name))
        yield


def _kept_folder() -> Path:
    """What is built once stays here from one run to the next; where `./check` names no place, in a temporary folder."""
    return Path(os.environ.get("AILAB_CHECK_HOME") or Path(tempfile.gettempdir()) / f"ailab-check-{os.geteuid()}")


def _machine_folder() -> Path:
    if os.geteuid() == 0:
        # Below a home of mode 0700 the lab's account could not reach it.
        return Path(os.environ.get("AILAB_CHECK_MACHINE") or "/var/tmp/ailab-check")
    return _kept_folder() / "ailab"


def _account_of_folder(machine: Path) -> str:
    return _PREFIX + hashlib.sha256(str(machine).encode()).hexdigest()[:8]


def _ensure_account(machine: Path) -> str:
    """The system account that this run's labs run as: the one that `machine` belongs to, else one of the run's own.

    The next run's account gets the same number, so that what was built stays its own. A home that `ailab` owns, from an
    older check, is used as it is.
    """
    if os.environ.get("AILAB_ACCOUNT"):
        return os.environ["AILAB_ACCOUNT"]
    name = _account_of_folder(machine)
    with (machine / ".account.lock").open("w") as lock:
        os.fchmod(lock.fileno(), 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        owner = (machine / "cache").stat().st_uid if (machine / "cache").exists() else 0
        names = {account.pw_name: account.pw_uid for account in pwd.getpwall()}
        if names.get("ailab") == owner:
            return "ailab"
        if name not in names:
            free = owner and owner not in names.values()
            words = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", str(machine / "home")]
            number = ["--uid", str(owner)] if free else []
            subprocess.run([*words, *number, "--shell", "/usr/sbin/nologin", name], check=True)
            (Path(os.environ[_MADE_VARIABLE]) / name).touch()
        if owner not in (0, pwd.getpwnam(name).pw_uid):
            subprocess.run(["chown", "-Rh", f"--from={owner}", f"{name}:{name}", str(machine)], check=True)
    return name


@contextlib.contextmanager
def made_account(home: Path) -> Iterator[pwd.struct_passwd]:
    """An account without privileges for one test, of a name of its own; its processes end with it. Needs root."""
    name = f"{_PREFIX}{secrets.token_hex(4)}"
    subprocess.run(["useradd", "--no-create-home", "--home-dir", str(home), name], check=True)
    account = pwd.getpwnam(name)
    try:
        yield account
    finally:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.uids().real == account.pw_uid:
                    process.kill()
        wait_for(
            lambda: subprocess.run(["userdel", name], check=False, capture_output=True).returncode == 0,
            timeout=10,
            what=f"userdel {name}",
        )


@pytest.fixture(scope="session")
def machine_home(isolated_session: None) -> Iterator[Path]:
    """One AILAB_HOME for all tests of a run (and the next), and as root the account whose it is."""
    home = _machine_folder()
    home.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        if os.geteuid() == 0:
            patch.setenv("AILAB_ACCOUNT", _ensure_account(home))
        yield home


@pytest.fixture(scope="session")
def own_machine() -> Path:
    """One AILAB_HOME for what tests build in their own process: as root not the labs', which their account owns."""
    home = _kept_folder() / "ailab"
    home.mkdir(parents=True, exist_ok=True)
    return home


def pytest_configure(config: pytest.Config) -> None:
    # The first process of a run; its workers inherit the variable.
    if not hasattr(config, "workerinput"):
        config.stash[_MADE] = Path(tempfile.mkdtemp(prefix="ailab-check-"))
        os.environ[_MADE_VARIABLE] = str(config.stash[_MADE])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the account that this run has made, unless a process of it is left."""
    for note in config.stash[_MADE].iterdir() if _MADE in config.stash else ():
        subprocess.run(["userdel", note.name], check=False, capture_output=True)
    if _MADE in config.stash:
        shutil.rmtree(config.stash[_MADE])
