"""A lab's daemon replaced by a script of the tests, which runs as the same account with the same environment."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from conftest import CommandLine
from rooms import is_ready

from ailab.waiting import wait_for

_TESTS = Path(__file__).parents[1]


@contextmanager
def other_daemon(lab: CommandLine, script: str, *words: str) -> Iterator[None]:
    """Replace the daemon of a lab that is up by `script WORDS...`; at the end the lab is taken down."""
    daemon = psutil.Process(int((lab.paths.run / "daemon.lock").read_text()))
    command, environment = daemon.cmdline(), daemon.environ()
    user, group, groups = daemon.uids().real, daemon.gids().real, _groups(daemon)
    daemon.send_signal(signal.SIGKILL)
    daemon.wait(10)
    place = command.index("-m")
    command = [*command[:place], str(_TESTS / script), *words, *command[place + 2 :]]
    environment |= {"PYTHONPATH": str(_TESTS.parent / "src")}
    as_account = {"user": user, "group": group, "extra_groups": groups} if os.geteuid() == 0 else {}
    with (lab.lab.parent / "daemon.log").open("wb") as log:
        other = subprocess.Popen(command, env=environment, cwd="/", stdout=log, stderr=log, **as_account)
    try:
        wait_for(lambda: is_ready(lab), timeout=60, what=f"the daemon: {shlex.join(command)}")
        yield
    finally:
        lab.run("down", check=False)
        other.kill()
        other.wait(10)


def _groups(process: psutil.Process) -> list[int]:
    """Its supplementary groups; of a lab with containers, the engine's is one."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return [int(word) for word in status.partition("\nGroups:")[2].splitlines()[0].split()]
