"""A workspace as a browser reaches it: through the web port, the proxy and the hub's route."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from conftest import CommandLine

from ailab.access.secret_files import secret
from ailab.access.workspace_client import WorkspaceServer


@dataclass(frozen=True)
class WebDoor(WorkspaceServer):
    """`user`'s workspace at the web port `web`, asked as the lab's own service: what only a test does, for anybody may
    listen at a port."""

    web: tuple[str, int]

    def connect(self, timeout: float) -> socket.socket:
        return socket.create_connection(self.web, timeout)


def web_door(lab: CommandLine, user: str) -> WebDoor:
    return WebDoor(user, Path(), secret(lab.paths, "service-token"), lab.web)
