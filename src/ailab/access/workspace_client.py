"""What ailab itself asks of a person's Jupyter server: at its socket, with the server's own token."""

from __future__ import annotations

import http.client
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ailab.access.hub_client import exchange, token_headers
from ailab.errors import NotFound
from ailab.i18n import _
from ailab.runtimes.base import Runtime

ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class WorkspaceServer:
    """A running workspace's server. `token` is the one that the hub has given this very server: it opens this server
    alone, so whoever works there learns nothing from it."""

    user: str
    socket_path: Path
    token: str = field(repr=False)

    @classmethod
    def of(cls, runtime: Runtime, user: str) -> Self:
        """The server of `user`'s workspace. Raises `NotFound` if it does not run."""
        task_id = f"workspace-{user}"
        spec = runtime.spec(task_id)
        path = next((port for port in spec.ports if isinstance(port, str)), None) if spec is not None else None
        if spec is None or path is None:
            raise NotFound(_("{task} does not run.").format(task=task_id), remedy="ailab status")
        return cls(user, Path(runtime.connect(task_id, path)), spec.environment.get("JUPYTERHUB_API_TOKEN", ""))

    @property
    def headers(self) -> dict[str, str]:
        return token_headers(self.token)

    def path(self, below: str) -> str:
        """The server's own path of `below`, as `/api/kernels`."""
        return f"/user/{self.user}{below}"

    def connect(self, timeout: float) -> socket.socket:
        """A new connection. Raises OSError."""
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(timeout)
            connected.connect(str(self.socket_path))
        except OSError:
            connected.close()
            raise
        return connected

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        return _Connection(self, timeout)

    def call(self, method: str, below: str, body: Any = None, *, timeout: float = ANSWER_SECONDS) -> tuple[int, Any]:
        """One request: status and decoded answer. Raises `NotRunning`."""
        return exchange(self.connection(timeout), self.headers, method, self.path(below), body)


class _Connection(http.client.HTTPConnection):
    def __init__(self, server: WorkspaceServer, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._server, self._seconds = server, timeout

    def connect(self) -> None:
        self.sock = self._server.connect(self._seconds)
