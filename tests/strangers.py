"""Another account of this machine: what a program does there, in a process of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NOBODY = 65534
needs_stranger = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can be another account")

# Listens as soon as it can, tells of it, and then shows whatever is sent to it.
_LISTEN = """
import socket, sys
while True:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((sys.argv[1], int(sys.argv[2])))
        break
    except OSError:
        listener.close()
listener.listen()
print("listens", flush=True)
while True:
    connection = listener.accept()[0]
    connection.settimeout(1)
    try:
        print(repr(connection.recv(65536)), flush=True)
    except OSError:
        print("a connection", flush=True)
    connection.close()
"""


def as_stranger(code: str, *words: str, group: int = NOBODY) -> str:
    """What a Python program prints there; its last line is the error where it fails."""
    options = {"user": NOBODY, "group": group, "extra_groups": []}
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", code, *words], capture_output=True, text=True, timeout=30, **options
    )
    return (done.stdout + done.stderr).strip()


class Listener:
    """A program of another account that waits for a TCP port of this machine to be free, and takes it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def wait_until_it_listens(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "listens\n"

    def end(self) -> str:
        """End it; all that was sent to it."""
        self._process.terminate()
        return self._process.communicate(timeout=10)[0]


@contextmanager
def stranger_at(port: int, address: str = "127.0.0.1") -> Iterator[Listener]:
    process = subprocess.Popen(
        ["/usr/bin/python3", "-I", "-c", _LISTEN, address, str(port)],
        stdout=subprocess.PIPE,
        text=True,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
    )
    try:
        yield Listener(process)
    finally:
        process.kill()
        process.wait()
