"""The daemon's parts, wired once and handed to routes, loops and the portal."""

from __future__ import annotations

import http.client
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ailab.access.users import Users
from ailab.client import UnixConnection
from ailab.daemon.loop import Loops
from ailab.daemon.mlflow_service import MlflowService
from ailab.daemon.status import Measured
from ailab.daemon.supervisor import Supervisor
from ailab.fingerprint import build_of
from ailab.jobs.queue import Jobs
from ailab.jobs.worker import Worker
from ailab.lab import Lab
from ailab.resources.detect import Machine
from ailab.resources.ledger import Capacity, Gpu
from ailab.working import Working

# What the hub, the proxy, TensorBoard, the daemon and a few Jupyter servers take, and the system's own.
OWN_MEMORY = 2 * 1024**3


@dataclass(frozen=True)
class Parts:
    """Everything a handler may need. `leaving` is set when the process should end."""

    lab: Lab
    supervisor: Supervisor
    users: Users
    measured: Measured
    jobs: Jobs
    worker: Worker
    mlflow: MlflowService
    leaving: threading.Event = field(default_factory=threading.Event)
    loops: Loops = field(default_factory=Loops)

    @classmethod
    def of(cls, lab: Lab) -> Parts:
        store, measured = lab.store.open(), Measured(lab)
        jobs = Jobs(store)
        worker = Worker(jobs, lab.runtime, capacity_of(measured.machine), Working(lab, jobs))
        supervisor = Supervisor(store, lab.runtime)
        return cls(lab, supervisor, Users(store), measured, jobs, worker, MlflowService(lab, supervisor))

    def leave(self) -> None:
        """Have the process end; the tasks go on."""
        self.leaving.set()
        self.jobs.changed.set()

    def status(self) -> dict[str, Any]:
        tasks = [task.to_json() for task in self.supervisor.tasks()]
        answers = hub_answers(self.lab.paths.hub_socket)
        document = self.measured.document(tasks, self.health(), hub_answers=answers)
        return document | {"mlflow": self.mlflow.state(), "build": build_of(self.lab)}

    def health(self) -> dict[str, Any]:
        """The daemon's loops, and all that fails now, each with `what`, `error`, `failures` in a row and `since`."""
        loops = self.loops.to_json()
        faults = [fault for loop in loops for fault in loop["faults"]]
        faults += [*self.supervisor.faults(), *self.worker.faults()]
        return {"loops": loops, "faults": faults}


def capacity_of(machine: Machine) -> Capacity:
    """What tasks may hold of this machine: all its CPUs and GPUs, and its memory but for what the lab's own services
    and the system take."""
    gpus = tuple(Gpu(str(gpu.index), gpu.memory_bytes) for gpu in machine.gpus)
    return Capacity(machine.cpus, max(machine.memory_bytes // 2, machine.memory_bytes - OWN_MEMORY), gpus)


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
