"""A wait for a cell ends when its kernel has gone, and goes on while the workspace is on its way back."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from threading import Thread

import pytest
from websockets.sync.server import ServerConnection, unix_serve

from ailab.access import kernel_client
from ailab.access.workspace_client import WorkspaceServer
from ailab.errors import AilabError

# As of a server that is not ready yet, without the reason that HTTP asks for.
NOT_THERE = b"HTTP/1.1 503\r\nContent-Length: 0\r\n\r\n"
NO_KERNEL = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def workspace(tmp_path: Path) -> WorkspaceServer:
    return WorkspaceServer("li", tmp_path / "jupyter.sock", "its own")


def answer(door: socket.socket, *answers: bytes) -> None:
    for words in answers:
        connection, _address = door.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(words)


def test_a_workspace_on_its_way_back_is_waited_for_and_a_kernel_that_is_gone_is_told(
    workspace: WorkspaceServer,
) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(workspace.socket_path))
        door.listen()
        door.settimeout(10)
        Thread(target=answer, args=(door, b"", NOT_THERE, NOT_THERE, NO_KERNEL), daemon=True).start()
        with pytest.raises(AilabError, match=re.escape("out of reach (HTTP 404)")):
            kernel_client.execute(workspace, "12ab", "1 + 1")


def test_a_connection_that_ends_in_the_middle_is_told(workspace: WorkspaceServer) -> None:
    def leave(connection: ServerConnection) -> None:
        connection.recv()
        connection.close(1001, "the server is closed")

    with unix_serve(leave, str(workspace.socket_path)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(AilabError, match=r"out of reach \(.*the server is closed"):
            kernel_client.execute(workspace, "12ab", "1 + 1")
