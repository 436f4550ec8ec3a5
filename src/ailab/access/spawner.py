"""JupyterHub's spawner: a thin adapter from its contract to ours. The daemon runs the workspace as a task."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from jupyterhub.spawner import Spawner, SpawnException
from jupyterhub.utils import random_port
from traitlets import Unicode

from ailab.client import Client
from ailab.errors import AilabError, NotFound, NotRunning
from ailab.paths import LabPaths
from ailab.waiting import TimedOut, wait_for_async

_ANSWER_SECONDS = 5.0


class LabSpawner(Spawner):
    """A workspace is a task that the daemon keeps running: with the same port and token after a crash or a reboot."""

    has_listened = False
    address = ""
    lab_root = Unicode(config=True, help="The lab's folder.")

    @property
    def lab(self) -> LabPaths:
        return LabPaths(Path(self.lab_root))

    @property
    def task_id(self) -> str:
        return f"workspace-{self.user.name}"

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return await asyncio.to_thread(Client(self.lab.daemon_socket).call, method, path, body)

    async def start(self) -> str:
        self.ip = "127.0.0.1"
        self.port: int = self.port or random_port()
        workspace = {"user": self.user.name, "port": self.port, "variables": self.get_env()}
        try:
            task = await self.call("POST", "/api/workspaces", workspace)
        except AilabError as refused:
            text = f"{refused.message} {refused.remedy}".strip()
            raise SpawnException(text, reason="refused", status_code=refused.http_status) from refused
        self.address = task["address"]
        await self.wait_until_it_listens()
        return f"http://{self.address}"

    async def wait_until_it_listens(self) -> None:
        """Wait in short steps: the hub's own look at a new server comes at growing intervals, seconds too late."""
        host, _colon, port = self.address.rpartition(":")

        async def listens() -> bool:
            # A container's port takes connections before anything listens inside, and drops them.
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(b"GET /robots.txt HTTP/1.0\r\n\r\n")
                answered = await asyncio.wait_for(reader.read(1), _ANSWER_SECONDS)
                writer.close()
            except (OSError, TimeoutError):
                return False
            return bool(answered)

        self.has_listened = True
        await wait_for_async(listens, timeout=self.start_timeout, what=self.task_id, first=0.05, last=0.1)

    async def poll(self) -> int | None:
        """None: runs, or the daemon is about to start it again. A daemon that does not answer says nothing of it."""
        try:
            task = await self.call("GET", f"/api/tasks/{self.task_id}")
        except NotFound:
            return 0
        except (NotRunning, TimedOut):
            return None
        if not task["wanted"]:
            return task["exit_status"] or 0
        if self.address and task["address"] not in (None, self.address):
            # Its port was taken while it was down, so the hub's route leads nowhere: to be started anew.
            return 0
        if not self.has_listened:
            # A hub that has just started: the workspace may be starting beside it.
            self.address = task["address"] or self.address
            await self.wait_until_it_listens()
        return None

    async def stop(self, now: bool = False) -> None:
        await self.call("DELETE", f"/api/tasks/{self.task_id}")

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "port": self.port, "address": self.address}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.port = state.get("port", 0)
        self.address = state.get("address") or f"127.0.0.1:{self.port}"

    def clear_state(self) -> None:
        super().clear_state()
        self.port = 0
