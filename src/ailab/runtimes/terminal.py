"""A command at a terminal of its own where a task runs: what a person who comes by SSH types into."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import socket
import struct
import subprocess
import termios
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ailab import command, engine
from ailab.runtimes import processes
from ailab.waiting import wait_for

if TYPE_CHECKING:
    from docker import DockerClient

KILL_SECONDS = 5.0


class Terminal(ABC):
    """Bytes as a terminal sends and shows them. Whoever opened it closes it."""

    @abstractmethod
    def fileno(self) -> int:
        """What `select` and an event loop wait on."""

    @abstractmethod
    def read(self, size: int = 65536) -> bytes:
        """What has been put out; waits for it. Empty when the command has ended."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Type `data`."""

    @abstractmethod
    def resize(self, rows: int, columns: int) -> None:
        """The person's window has another size now."""

    @abstractmethod
    def wait(self, timeout: float) -> int:
        """The exit status, 128 + n after signal n; raises `TimedOut` when the command has not ended in `timeout` s."""

    @abstractmethod
    def close(self) -> None:
        """End the command, if it runs still, as a terminal does that is hung up; and let everything go."""


class LocalTerminal(Terminal):
    """On this machine: a pseudo-terminal (pty(7))."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path) -> None:
        self._ours, theirs = pty.openpty()
        try:
            self._process: subprocess.Popen[bytes] = command.start_at_terminal(argv, theirs, env=environment, cwd=cwd)
        except BaseException:
            os.close(self._ours)
            raise
        finally:
            os.close(theirs)

    def fileno(self) -> int:
        return self._ours

    def read(self, size: int = 65536) -> bytes:
        try:
            return os.read(self._ours, size)
        except OSError:  # EIO: nobody is at the other end any more
            return b""

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._ours, data) :]

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait(self, timeout: float) -> int:
        ended = wait_for(lambda: self._process.poll() is not None, timeout=timeout, what=str(self._process.args))
        assert ended
        return self._process.returncode if self._process.returncode >= 0 else 128 - self._process.returncode

    def close(self) -> None:
        os.close(self._ours)
        if self._process.poll() is None:
            processes.signal_all([self._process.pid], signal.SIGKILL)
            self._process.wait(KILL_SECONDS)


class ContainerTerminal(Terminal):
    """In a container: the engine's own, as `docker exec --tty` has it."""

    def __init__(self, client: DockerClient, container: str, argv: Sequence[str]) -> None:
        self._api = client.api
        with engine.told():
            self._id: str = self._api.exec_create(container, list(argv), tty=True, stdin=True)["Id"]
            # The SDK gives a file over the connection; closing either closes the other.
            self._file: Any = self._api.exec_start(self._id, tty=True, socket=True)
        self._socket: socket.socket = getattr(self._file, "_sock", self._file)
        self._socket.settimeout(None)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self, size: int = 65536) -> bytes:
        try:
            return self._socket.recv(size)
        except OSError:
            return b""

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def resize(self, rows: int, columns: int) -> None:
        with engine.told():
            self._api.exec_resize(self._id, height=rows, width=columns)

    def wait(self, timeout: float) -> int:
        ended: dict[str, Any] = wait_for(self._ended, timeout=timeout, what=self._id[:12])
        return int(ended["ExitCode"])

    def _ended(self) -> dict[str, Any] | None:
        seen = self._seen()
        return seen if _has_ended(seen) else None

    def _begun(self) -> dict[str, Any] | None:
        """What the engine says once it names the process: it answers before it starts it, and names it a little after,
        when it may have put out something already (moby, ContainerExecStart)."""
        seen = self._seen()
        return seen if seen["Pid"] or _has_ended(seen) else None

    def _seen(self) -> dict[str, Any]:
        with engine.told():
            seen: dict[str, Any] = self._api.exec_inspect(self._id)
        return seen

    def close(self) -> None:
        try:
            seen = wait_for(self._begun, timeout=KILL_SECONDS, what=self._id[:12])
            if seen["Running"]:
                processes.signal_all([seen["Pid"]], signal.SIGKILL)
        finally:
            self._file.close()


def _has_ended(seen: dict[str, Any]) -> bool:
    return seen["ExitCode"] is not None and not seen["Running"]
