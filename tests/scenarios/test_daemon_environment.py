"""The daemon is started from a shell full of secrets and foreign packages, and gets neither."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from conftest import CommandLine
from rooms import processes_of

from ailab import files
from ailab.waiting import wait_for

pytestmark = pytest.mark.lab

SECRET = {"AWS_SECRET_ACCESS_KEY": "not-for-the-lab", "AILAB_REGISTRY_PASSWORD": "nor-this", "PYTHONHASHSEED": "12"}


@pytest.fixture
def foreign(science: CommandLine, tmp_path: Path) -> CommandLine:
    """The lab's command line in a shell whose PYTHONPATH has a package that breaks who imports it."""
    (tmp_path / "typing_extensions.py").write_text("raise ImportError('a foreign package')\n")
    path = {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "typing_extensions.py")}
    return replace(science, environment=science.environment | path | SECRET)


@pytest.fixture
def without_daemon(science: CommandLine) -> Iterator[None]:
    """The lab's tasks alone: its daemon has been killed."""
    science.up()
    lock = science.paths.run / "daemon.lock"
    pid = files.holder(lock)
    assert pid is not None
    psutil.Process(pid).kill()
    wait_for(lambda: files.holder(lock) is None, timeout=10, what="the daemon to end")
    yield
    science.up()


@pytest.mark.usefixtures("without_daemon")
def test_the_callers_packages_and_secrets_stay_out(science: CommandLine, foreign: CommandLine) -> None:
    foreign.up()
    daemon = files.holder(science.paths.run / "daemon.lock")
    assert daemon is not None
    assert "not-for-the-lab" not in str(psutil.Process(daemon).environ())
    for process in processes_of(science):
        assert not SECRET.keys() & process.environ().keys(), process
    foreign.run("verify")
