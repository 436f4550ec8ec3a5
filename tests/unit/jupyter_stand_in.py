"""In the place of a person's Jupyter server: says for how long nothing has happened there, as it is told to."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any


class Server:
    """Answers as a Jupyter server does to who asks for its kernels and terminals."""

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

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_why: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def port(self) -> int:
        return self.http.server_port


def opened(seconds_ago: float, state: str = "idle") -> dict[str, Any]:
    """A kernel that last did something so long ago, as Jupyter's REST API shows it."""
    at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return {"execution_state": state, "last_activity": f"{at:%Y-%m-%dT%H:%M:%S.%fZ}"}
