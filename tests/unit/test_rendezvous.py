"""The place where Horovod's workers meet: what is put is found, and the command beside it ends as it would alone."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import free_port

from ailab.jobs import rendezvous
from ailab.waiting import wait_for

SOURCE = str(Path(__file__).parents[2] / "src")


def started(code: str, port: int) -> subprocess.Popen[str]:
    words = rendezvous.program((sys.executable, "-c", code), python=sys.executable, place=f"127.0.0.1:{port}")
    # This checkout's, not one that may be installed.
    words = (words[0], *words[2:])
    return subprocess.Popen(words, env=os.environ | {"PYTHONPATH": SOURCE}, stdout=subprocess.PIPE, text=True)


def asked(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def listens(port: int) -> bool:
    try:
        return asked(port, "GET", "/global_/none")[0] == 404
    except OSError:
        return False


def test_what_is_put_is_found_until_the_command_ends() -> None:
    port = free_port()
    beside = started("import time; time.sleep(600)", port)
    try:
        wait_for(lambda: listens(port), timeout=10, what="the place")
        assert asked(port, "PUT", "/global_/0", b"\x00address") == (200, b"")
        assert asked(port, "GET", "/global_/0") == (200, b"\x00address")
        assert asked(port, "GET", "/global_/1")[0] == 404
        assert asked(port, "DELETE", "/global_/0")[0] == 200
        assert asked(port, "GET", "/global_/0")[0] == 200, "a slower worker still finds it"
    finally:
        beside.kill()
        beside.wait(10)


@pytest.mark.parametrize(
    ("code", "status"),
    [("raise SystemExit(3)", 3), ("pass", 0), ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL)],
)
def test_it_ends_as_the_command_does(code: str, status: int) -> None:
    assert started(code, free_port()).wait(20) == status


def test_a_command_that_is_not_there_is_told() -> None:
    words = (sys.executable, "-m", "ailab.jobs.rendezvous", f"127.0.0.1:{free_port()}", "no-such-program")
    done = subprocess.run(
        words, env=os.environ | {"PYTHONPATH": SOURCE}, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 127 and "no-such-program" in done.stderr
