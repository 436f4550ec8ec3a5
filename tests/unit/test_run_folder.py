"""The run folder of a lab whose path is too long for sockets stands in /tmp, and only while the lab runs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ailab import files
from ailab.lab import Lab
from ailab.paths import LabPaths, MachinePaths, private_folder
from ailab.settings import Settings
from ailab.shutdown import clear_run_folder


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    root = tmp_path / ("long" * 10)
    root.mkdir()
    made = Lab(LabPaths(root), MachinePaths(tmp_path / "machine"), Settings())
    made.make_private_folders()
    assert not made.paths.run.is_relative_to(root) and not made.paths.run.exists()
    return made


def test_it_goes_with_all_that_stopped_tasks_left_there(lab: Lab) -> None:
    run = private_folder(lab.paths.run)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(run / "hub.sock"))
        clear_run_folder(lab)
        assert (run / "hub.sock").exists(), "somebody uses it"
    with files.locked(run / "daemon.lock"):
        (run / "daemon.lock").write_text("4711")
        clear_run_folder(lab)
        assert (run / "hub.sock").exists(), "a daemon is there"
    clear_run_folder(lab)
    assert not run.exists()
    clear_run_folder(lab)


def test_one_inside_the_lab_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lab = Lab(LabPaths(Path("lab")), MachinePaths(tmp_path), Settings())
    lab.paths.root.mkdir()
    lab.make_private_folders()
    run = private_folder(lab.paths.run)
    assert run == Path("lab/.ailab/run")
    clear_run_folder(lab)
    assert run.is_dir()
