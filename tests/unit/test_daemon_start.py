"""A daemon that does not start: the cause that is shown is of this start alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ailab import bringup, fingerprint
from ailab.errors import AilabError
from ailab.lab import Lab
from ailab.paths import LabPaths, MachinePaths
from ailab.settings import Settings


def test_log_lines_of_an_earlier_start_are_not_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(LabPaths(tmp_path / "lab"), MachinePaths(tmp_path / "home"), Settings())
    lab.paths.root.mkdir()
    lab.make_private_folders()
    lab.paths.daemon_log.write_text("ModuleNotFoundError: an earlier trouble\n")
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho the disk is on fire >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(fingerprint, "build_of", lambda _lab: "this one")
    with pytest.raises(AilabError) as refused:
        bringup.ensure_daemon(lab, 0)
    assert refused.value.detail == "the disk is on fire"
