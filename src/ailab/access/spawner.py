"""JupyterHub's spawner: a thin adapter from its contract to ours. The daemon runs the workspace as a task."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.spawner import Spawner, SpawnException
from traitlets import Unicode

from ailab.access.services import socket_url
from ailab.client import Client
from ailab.errors import AilabError, NotFound, NotRunning
from ailab.paths import LabPaths
from ailab.waiting import TimedOut, wait_for_async

_ANSWER_SECONDS = 5.0


class LabSpawner(Spawner):
    """A workspace is a task that the daemon keeps running: with the same socket and token after a crash or a reboot."""

    has_listened = False
    lab_root = Unicode(config=True, help="The lab's folder.")

    @property
    def lab(self) -> LabPaths:
        return LabPaths(Path(self.lab_root))

    @property
    def task_id(self) -> str:
        return f"workspace-{self.user.name}"

    @property
    def socket(self) -> Path:
        return self.lab.workspace_socket(self.user.name)

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return await asyncio.to_thread(Client(self.lab.daemon_socket).call, method, path, body)

    async def start(self) -> str:
        workspace = {"user": self.user.name, "variables": self.get_env()}
        try:
            await self.call("POST", "/api/workspaces", workspace)
        except AilabError as refused:
            text = f"{refused.message} {refused.remedy}".strip()
            raise SpawnException(text, reason="refused", status_code=refused.http_status) from refused
        await self.wait_until_it_listens()
        self.route_to_socket()
        return socket_url(self.socket)

    async def wait_until_it_listens(self) -> None:
        """Wait in short steps: the hub's own look at a new server comes at growing intervals, seconds too late."""

        async def listens() -> bool:
            try:
                reader, writer = await asyncio.open_unix_connection(self.socket)
                writer.write(b"GET /robots.txt HTTP/1.0\r\n\r\n")
                answered = await asyncio.wait_for(reader.read(1), _ANSWER_SECONDS)
                writer.close()
            except (OSError, TimeoutError):
                return False
            return bool(answered)

        self.has_listened = True
        await wait_for_async(listens, timeout=self.start_timeout, what=self.task_id, first=0.05, last=0.1)

    def route_to_socket(self) -> None:
        """Have the hub and its proxy reach the server at its socket, whatever the hub's database says.

        The database has a host and a port for each server, and JupyterHub (6.1.1, `objects.Server.host`) joins them to
        `http+unix://...:80`. Only `connect_url` is taken as it is; it is not stored.
        """
        url = socket_url(self.socket)
        self.server.proto, self.server.ip, self.server.port = "http+unix", urlsplit(url).hostname, 80
        self.server.connect_url = url

    async def poll(self) -> int | None:
        """None: runs, or the daemon is about to start it again. A daemon that does not answer says nothing of it."""
        if self.server is not None:
            self.route_to_socket()
        try:
            task = await self.call("GET", f"/api/tasks/{self.task_id}")
        except NotFound:
            return 0
        except (NotRunning, TimedOut):
            return None
        if not task["wanted"]:
            return task["exit_status"] or 0
        if not self.has_listened:
            # A hub that has just started: the workspace may be starting beside it.
            await self.wait_until_it_listens()
        return None

    async def stop(self, now: bool = False) -> None:
        await self.call("DELETE", f"/api/tasks/{self.task_id}")
