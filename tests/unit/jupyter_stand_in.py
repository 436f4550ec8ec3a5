"""In the place of a person's Jupyter server: says for how long nothing has happened there, as it is told to."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from ailab.runtimes.base import Runtime

SOCKET = "/nowhere/jupyter.sock"


class Server:
    """Answers at a unix socket as a Jupyter server does to who asks for its kernels and terminals."""

    def __init__(self) -> None:
        self.kernels: list[dict[str, Any]] = []
        self.terminals: list[dict[str, Any]] = []
        self.status = 200
        ours = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind = self.path.partition("?")[0].rpartition("/")[2]
                body = json.dumps(getattr(ours, kind)).encode()
                self.send_response(ours.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_words: Any) -> None:
                pass

            def address_string(self) -> str:
                return "a unix socket"

        self._folder = TemporaryDirectory(prefix="jupyter-")
        self.socket = str(Path(self._folder.name) / "jupyter.sock")
        self.http = UnixStreamServer(self.socket, Handler)
        Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def answer_for(self, runtime: Runtime) -> None:
        """Be what tasks of `runtime` are reached at: a socket that a specification names is removed at each start."""
        runtime.connect = lambda task_id, port: self.socket  # type: ignore[method-assign]

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_why: object) -> None:
        self.http.shutdown()
        self.http.server_close()
        self._folder.cleanup()


def opened(seconds_ago: float, state: str = "idle") -> dict[str, Any]:
    """A kernel that last did something so long ago, as Jupyter's REST API shows it."""
    at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return {"execution_state": state, "last_activity": f"{at:%Y-%m-%dT%H:%M:%S.%fZ}"}
