"""The daemon's parts, wired once and handed to routes, loops and the portal."""

from __future__ import annotations

import http.client
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ailab.access.users import Users
from ailab.client import UnixConnection
from ailab.daemon.status import Measured
from ailab.daemon.supervisor import Supervisor
from ailab.fingerprint import build_of
from ailab.lab import Lab


@dataclass(frozen=True)
class Parts:
    """Everything a handler may need. `leaving` is set when the process should end."""

    lab: Lab
    supervisor: Supervisor
    users: Users
    measured: Measured
    leaving: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, lab: Lab) -> Parts:
        store = lab.store.open()
        return cls(lab, Supervisor(store, lab.runtime), Users(store), Measured(lab))

    def status(self) -> dict[str, Any]:
        tasks = [task.to_json() for task in self.supervisor.tasks()]
        document = self.measured.document(tasks, hub_answers=hub_answers(self.lab.paths.hub_socket))
        return document | {"build": build_of(self.lab)}


def hub_answers(socket: Path) -> bool:
    """Whether the hub is up and well, by its own word."""
    connection = UnixConnection(socket, timeout=2)
    try:
        connection.request("GET", "/hub/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
