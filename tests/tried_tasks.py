"""Tasks for the tests of runtimes: how to specify one and how to see what became of it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil

from ailab.runtimes.base import Runtime, Seen, TaskSpec, TaskState
from ailab.waiting import wait_for

FOREVER = "import time\nprint('up')\nwhile True: time.sleep(0.1)"


@dataclass(frozen=True)
class Specs:
    """Makes specifications that a runtime can run: of Python code, with a Python that is where the task runs."""

    python: str
    image: str = ""

    def __call__(self, code: str, **changes: object) -> TaskSpec:
        values: dict[str, object] = {
            "id": "one",
            "name": "one",
            "kind": "job",
            "command": (self.python, "-u", "-c", code),
            "environment": {"PATH": os.defpath, "GREETING": "hello"},
            "cwd": "/",
            "grace": 5.0,
            "image": self.image,
        }
        return TaskSpec.from_json(values | changes)


def until(runtime: Runtime, state: TaskState, task_id: str = "one") -> Seen:
    def reached() -> Seen | None:
        seen = runtime.poll(task_id)
        return seen if seen.state == state else None

    return wait_for(reached, timeout=15, what=f"{task_id} to be {state}")


def line(runtime: Runtime, starts_with: str = "") -> str:
    """The first line of the task's output."""

    return wait_for(
        lambda: next((text for text in runtime.logs("one") if text.startswith(starts_with)), None),
        timeout=10,
        what="output",
    )


def alive(mark: str) -> list[int]:
    """The processes of this machine, wherever they run, that have `mark` in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(
            mark in word for word in process.info["cmdline"] or ()
        ):
            found.append(process.pid)
    return found


def stubborn(mark: str) -> str:
    """A program that will not end when asked to, nor does its child in another session; both carry `mark`."""
    return f"""
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = 'import signal,time; signal.signal(15, signal.SIG_IGN); print("up", flush=True); time.sleep(600)  # {mark}'
subprocess.Popen([sys.executable, '-c', code], start_new_session=True)
while True: time.sleep(0.1)
"""
