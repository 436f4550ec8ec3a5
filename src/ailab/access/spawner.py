"""JupyterHub's spawner: a thin adapter from its contract to ours. The daemon runs the workspace as a task."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from jupyterhub.spawner import Spawner
from jupyterhub.utils import random_port
from traitlets import Unicode

from ailab.access.services import base_environment
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

    def workspace_environment(self) -> dict[str, str]:
        """The workspace's whole environment: the hub's variables for a server, and where ours are."""
        state, run = self.lab.state, self.lab.run
        ours = {
            "AILAB_LAB": str(self.lab.root),
            "JUPYTER_PATH": str(state / "jupyter"),
            "JUPYTER_DATA_DIR": str(state / "jupyter-data"),
            "JUPYTER_CONFIG_DIR": str(state / "jupyter-config"),
            "JUPYTER_RUNTIME_DIR": str(run / "kernels"),
            "JUPYTERHUB_ROOT_DIR": str(self.lab.root),
            "AILAB_LOGS": str(self.lab.logs),
            "AILAB_MODELS": str(self.lab.root / "models"),
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        hubs = {
            name: value
            for name, value in self.get_env().items()
            if name.startswith(("JUPYTERHUB_", "JPY_", "MEM_", "CPU_"))
        }
        return base_environment(os.environ) | hubs | ours

    async def start(self) -> str:
        self.ip = "127.0.0.1"
        self.port: int = self.port or random_port()
        config = Path(__file__).with_name("workspace_config.py")
        task = {
            "id": self.task_id,
            "kind": "workspace",
            "name": self.task_id,
            "owner": self.user.name,
            "command": [sys.executable, "-P", "-m", "ailab.access.workspace", f"--config={config}"],
            "environment": self.workspace_environment(),
            "cwd": str(self.lab.root),
            "ports": [self.port],
        }
        await self.call("POST", "/api/tasks", task)
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
