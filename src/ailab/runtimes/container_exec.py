"""A command run inside a container that runs, with a limit to its time."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ailab import engine
from ailab.command import Finished
from ailab.runtimes import kept_log, processes
from ailab.waiting import TimedOut, within

if TYPE_CHECKING:
    from docker import DockerClient


def run_in(client: DockerClient, container: str, argv: Sequence[str], timeout: float) -> Finished:
    """Returns when the command has ended, whatever its status. After `timeout` seconds it is killed, and `TimedOut`
    raised. Raises `EngineError`."""
    api = client.api
    with engine.told():
        made = api.exec_create(container, list(argv))["Id"]
        try:
            out, err = within(timeout, lambda: api.exec_start(made, demux=True), argv[0])
        except TimedOut:
            processes.signal_all([api.exec_inspect(made)["Pid"]], signal.SIGKILL)
            raise
        status = api.exec_inspect(made)["ExitCode"]
    return Finished(tuple(argv), status, kept_log.text(out or b""), kept_log.text(err or b""))
