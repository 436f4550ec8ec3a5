"""What the scenarios look at in a lab: its tasks, its processes, its ports, its kernels."""

from __future__ import annotations

import http.client
import os
from typing import Any

import psutil
from conftest import CommandLine
from web_door import web_door

from ailab.client import Client


def tasks(lab: CommandLine) -> dict[str, Any]:
    return {task["id"]: task for task in lab.json("status")["tasks"]}


def services_and_workspaces(lab: CommandLine) -> dict[str, int]:
    """The pid of each task that is to stay; chores come and go."""
    return {name: task["pid"] for name, task in tasks(lab).items() if task["kind"] != "chore"}


def processes_of(lab: CommandLine) -> list[psutil.Process]:
    """Everything that runs for the lab: the daemon, and each task with its shim."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            words = " ".join(process.info["cmdline"] or []) + " ".join(process.environ().values())
        except (psutil.Error, OSError):
            continue
        if str(lab.lab) in words and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def listening(lab: CommandLine) -> list[tuple[str, int]]:
    """The TCP addresses that processes of the lab listen on."""
    pids = {process.pid for process in processes_of(lab)}
    return [tuple(c.laddr) for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.pid in pids]


def kernel(lab: CommandLine, user: str) -> str:
    """A new kernel in the user's workspace, asked for at the public door."""
    status, answer = web_door(lab, user).call("POST", "/api/kernels", {"path": "notebooks"})
    assert status == http.client.CREATED, answer
    return str(answer["id"])


def is_ready(lab: CommandLine) -> bool:
    try:
        return bool(Client(lab.paths.daemon_socket).get("/api/status")["state"] == "ready")
    except Exception:  # while the daemon is away, whatever the client says
        return False
