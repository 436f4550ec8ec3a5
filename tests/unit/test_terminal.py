"""A container's terminal beside an engine that names the process late, as it does on a machine with much to do."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ailab.runtimes.terminal import ContainerTerminal

CREATED = {"Running": False, "ExitCode": None, "Pid": 0}
STARTED = {"Running": True, "ExitCode": None, "Pid": 0}


class Api:
    """The part of the engine's that terminals use; `told` is what it says of the command, one after another."""

    def __init__(self, told: list[dict[str, Any]]) -> None:
        self.told = told
        self.connection, self._engines = socket.socketpair()

    def exec_create(self, *_words: Any, **_wish: Any) -> dict[str, str]:
        return {"Id": "12ab"}

    def exec_start(self, *_words: Any, **_wish: Any) -> socket.socket:
        return self.connection

    def exec_inspect(self, _id: str) -> dict[str, Any]:
        return self.told.pop(0) if len(self.told) > 1 else self.told[0]


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as started:
        yield started
        started.kill()


def opened(told: list[dict[str, Any]]) -> ContainerTerminal:
    client: Any = SimpleNamespace(api=Api(told))
    return ContainerTerminal(client, "one", ["sleep", "600"])


def test_closing_ends_the_command_once_the_engine_names_it(process: subprocess.Popen[bytes]) -> None:
    terminal = opened([CREATED, STARTED, STARTED | {"Pid": process.pid}])
    terminal.close()
    assert process.wait(10) == -signal.SIGKILL
    assert terminal.fileno() == -1


def test_closing_after_the_end_signals_nobody(process: subprocess.Popen[bytes]) -> None:
    opened([{"Running": False, "ExitCode": 0, "Pid": process.pid}]).close()
    assert process.poll() is None


def test_a_command_that_is_not_started_yet_has_not_ended() -> None:
    assert opened([CREATED, STARTED, {"Running": False, "ExitCode": 3, "Pid": 1}]).wait(10) == 3
