"""`ailab doctor` on a real lab: all is well while it runs and after it was stopped; a killed daemon is told."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine

from ailab.waiting import wait_for

pytestmark = pytest.mark.lab


def examined(lab: CommandLine) -> dict[str, Any]:
    """The findings of each check; the network may be what it is."""
    return {
        check["name"]: check["findings"]
        for check in json.loads(lab.run("doctor", "--json", check=False).stdout)["checks"]
    }


def healthy(checks: dict[str, Any], but: tuple[str, ...] = ()) -> None:
    of_the_lab = ("settings", "permissions", "processes", "leftovers", "port", "python", "home", "orphans")
    for name in set(of_the_lab) - set(but):
        assert [finding["severity"] for finding in checks[name]] == ["ok"], checks[name]


def test_a_lab_from_before_its_first_start_to_after_its_end(another: CommandLine, tmp_path: Path) -> None:
    healthy(examined(another))
    another.up()
    healthy(examined(another))
    report = tmp_path / "report.md"
    another.run("doctor", "--report", str(report), check=False)
    text = report.read_text()
    assert "tasks/hub/log" in text and "## Events" in text
    for file in another.paths.secrets.iterdir():
        assert file.read_text().strip() not in text, file.name
    daemon = int((another.paths.run / "daemon.lock").read_text())
    os.kill(daemon, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{daemon}").exists(), timeout=10, what="the daemon to be gone")
    checks = examined(another)
    healthy(checks, but=("processes",))
    (alone,) = checks["processes"]
    assert alone["severity"] == "warning" and "hub" in alone["evidence"] and "up" in alone["remedy"]
    another.run("down")
    healthy(examined(another))
    another.run("doctor", "--fix", "--yes", check=False)
    assert not list(another.paths.run.glob("*.sock")), "the sockets of a stopped lab are swept up"
    another.up()
