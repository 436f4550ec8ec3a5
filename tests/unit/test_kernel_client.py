"""Who waits for a cell is told when its kernel has gone, and waits where the proxy is on its way back."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from threading import Thread

import pytest
from websockets.sync.server import ServerConnection, serve

from ailab.access import kernel_client
from ailab.errors import AilabError
from ailab.paths import LabPaths

# As configurable-http-proxy says that the workspace does not answer, word for word.
NOT_THERE = b"HTTP/1.1 503\r\nContent-Length: 0\r\n\r\n"
NO_KERNEL = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def lab(tmp_path: Path) -> LabPaths:
    paths = LabPaths(tmp_path)
    paths.secrets.mkdir(parents=True)
    return paths


def answer(door: socket.socket, *answers: bytes) -> None:
    for words in answers:
        connection, _address = door.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(words)


def test_a_proxy_on_its_way_back_is_waited_for_and_a_kernel_that_is_gone_is_told(lab: LabPaths) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(10)
        Thread(target=answer, args=(door, b"", NOT_THERE, NOT_THERE, NO_KERNEL), daemon=True).start()
        with pytest.raises(AilabError, match=re.escape("out of reach (HTTP 404)")):
            kernel_client.execute(lab, door.getsockname()[:2], "li", "12ab", "1 + 1")


def test_a_connection_that_ends_in_the_middle_is_told(lab: LabPaths) -> None:
    def leave(connection: ServerConnection) -> None:
        connection.recv()
        connection.close(1001, "the server is closed")

    with serve(leave, "127.0.0.1", 0) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(AilabError, match=r"out of reach \(.*the server is closed"):
            kernel_client.execute(lab, server.socket.getsockname()[:2], "li", "12ab", "1 + 1")
