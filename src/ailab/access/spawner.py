"""JupyterHub's spawner: a thin adapter from its contract to ours. The daemon runs the workspace as a task."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from jupyterhub.spawner import Spawner
from jupyterhub.utils import random_port
from traitlets import Unicode

from ailab.client import Client
from ailab.errors import NotFound, NotRunning
from ailab.paths import LabPaths
from ailab.waiting import TimedOut, wait_for_async


class LabSpawner(Spawner):
    """A workspace is a task that the daemon keeps running: with the same port and token after a crash or a reboot."""

    has_listened = False
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
        await self.call("POST", "/api/workspaces", workspace)
        await self.wait_until_it_listens()
        return f"http://127.0.0.1:{self.port}"

    async def wait_until_it_listens(self) -> None:
        """Wait in short steps: the hub's own look at a new server comes at growing intervals, seconds too late."""

        async def listens() -> bool:
            try:
                _reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return False
            writer.close()
            return True

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
        if not self.has_listened:
            # A hub that has just started: the workspace may be starting beside it.
            await self.wait_until_it_listens()
        return None

    async def stop(self, now: bool = False) -> None:
        await self.call("DELETE", f"/api/tasks/{self.task_id}")

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "port": self.port}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.port = state.get("port", 0)

    def clear_state(self) -> None:
        super().clear_state()
        self.port = 0
