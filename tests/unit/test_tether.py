"""A program on a tether ends with its caller, however that ends, with all that it has started; its secrets go, too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ailab import command
from ailab.runtimes.processes import command_lines
from ailab.waiting import wait_for

# A builder: it starts a helper in a session of its own, notes both, and works for ever. Neither ends when asked nicely.
BUILDER = """
import os, signal, subprocess, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
mark = sys.argv[1]
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", mark], start_new_session=True)
print("building", flush=True)
time.sleep(600)
"""
# What calls it: as `ailab image build` does, with a folder of secrets.
CALLER = """
import sys
from pathlib import Path
from ailab import command
from ailab.cli import main
import signal
signal.signal(signal.SIGTERM, main._interrupt)
signal.signal(signal.SIGINT, signal.default_int_handler)
secrets = Path(sys.argv[1])
words = [sys.executable, "-c", sys.argv[2], sys.argv[3]]
command.run(words, timeout=600, on_line=lambda line: print(line, flush=True), merged=True, tethered=(secrets,))
"""


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[str]:
    mark = f"mark-{tmp_path}"
    yield mark
    for pid in carrying(mark):
        os.kill(pid, signal.SIGKILL)


def carrying(mark: str) -> list[int]:
    return [pid for pid, words in command_lines() if words[-1] == mark]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_a_killed_caller(tmp_path: Path, mark: str, number: signal.Signals) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "ca").write_text("secret")
    words = [sys.executable, "-c", CALLER, str(secrets), BUILDER, mark]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as caller:
        assert caller.stdout is not None and caller.stdout.readline() == "building\n"
        assert len(carrying(mark)) >= 2
        caller.send_signal(number)
        caller.wait(10)
        wait_for(lambda: not carrying(mark), timeout=10, what="the builder and its helper to end")
        if number == signal.SIGKILL:
            wait_for(lambda: not secrets.exists(), timeout=10, what="the secrets to go")


def test_status_output_and_timeout_are_the_programs_own(mark: str) -> None:
    done = command.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout=10, check=False, tethered=())
    assert (done.status, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert command.run(["sh", "-c", "kill -9 $$"], timeout=10, check=False, tethered=()).status == 128 + 9
    assert command.run(["echo", "--", "--"], timeout=10, tethered=()).stdout == "-- --\n"
    assert command.run(["cat"], timeout=10, stdin="all of it", tethered=()).stdout == "all of it"
    with pytest.raises(command.CommandFailed, match="status 127") as caught:
        command.run(["/there/is/none"], timeout=10, tethered=())
    assert "/there/is/none: No such file" in caught.value.detail
    with pytest.raises(command.CommandFailed, match="did not end within"):
        command.run([sys.executable, "-c", BUILDER, mark], timeout=1.0, tethered=())
    wait_for(lambda: not carrying(mark), timeout=5, what="the builder and its helper to end")
