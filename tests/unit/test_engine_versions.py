"""Engines that speak other versions of Docker's API than ours."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from ailab import engine


@contextmanager
def engine_that_speaks(socket: Path, version: str) -> Iterator[None]:
    """An engine at `socket` that answers nothing older than `version`, as Docker Engine words it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.path.split("/")[1].removeprefix("v")
            spoken = [int(number) for number in asked.split(".")] >= [int(number) for number in version.split(".")]
            message = f"client version {asked} is too old. Minimum supported API version is {version}, please upgrade"
            body = b"OK" if spoken else json.dumps({"message": message}).encode()
            self.send_response(200 if spoken else 400)
            self.send_header("Content-Type", "text/plain" if spoken else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with socketserver.ThreadingUnixStreamServer(str(socket), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize(("speaks", "spoken"), [("1.12", engine.OLDEST_API), ("1.44", "1.44")])
def test_an_engine_is_asked_in_the_oldest_version_that_both_speak(
    speaks: str, spoken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    with engine_that_speaks(tmp_path / "engine.sock", speaks):
        client = engine.connect(5)
        assert client.api._version == spoken
        client.close()
