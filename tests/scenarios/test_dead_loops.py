"""A daemon whose loops have ended says so, and the next `up` puts another in its place: what runs goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from conftest import CommandLine

from ailab.client import UnixConnection
from ailab.errors import AilabError
from ailab.waiting import wait_for

pytestmark = pytest.mark.lab
DAEMON = Path(__file__).parents[1] / "daemon_with_dead_loops.py"


def test_up_repairs_a_daemon_whose_loops_have_ended(science: CommandLine) -> None:
    science.up()
    hub = next(task["pid"] for task in science.json("status")["tasks"] if task["id"] == "hub")
    daemon = psutil.Process(int((science.paths.run / "daemon.lock").read_text()))
    python, environment, uid = daemon.cmdline()[0], daemon.environ(), daemon.uids().real
    gid = daemon.gids().real
    daemon.send_signal(signal.SIGKILL)
    daemon.wait(10)
    broken = subprocess.Popen(
        [python, DAEMON, "--lab", science.lab],
        env=environment,
        user=uid if os.geteuid() == 0 else None,
        group=gid if os.geteuid() == 0 else None,
        extra_groups=[] if os.geteuid() == 0 else None,
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        seen = wait_for(lambda: _status(science), timeout=30, what="the broken daemon to say so")
        assert {loop["state"] for loop in seen["loops"]} == {"dead"}
        assert "Loops of the daemon have ended" in science.run("status").stdout
        assert _health(science) == 503
        repaired = science.up()
        assert repaired["state"] == "ready" and {loop["state"] for loop in repaired["loops"]} == {"running"}
        assert _health(science) == 200
        assert next(task["pid"] for task in repaired["tasks"] if task["id"] == "hub") == hub
        broken.wait(10)
    finally:
        broken.kill()
        broken.wait(10)
        # Others share the lab, however this ended.
        science.up()
    text = science.paths.daemon_log.read_text()
    assert "has ended; starting it again" in text and f"starts with pid {broken.pid}" in text


def _status(lab: CommandLine) -> dict[str, object] | None:
    try:
        seen: dict[str, object] = lab.json("status")
    except (AssertionError, AilabError):
        return None
    return seen if seen["state"] == "degraded" and seen["loops"] else None


def _health(lab: CommandLine) -> int:
    connection = UnixConnection(lab.paths.daemon_socket, timeout=10)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    finally:
        connection.close()
