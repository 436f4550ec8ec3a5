"""The runtimes there are: an explicit table."""

from __future__ import annotations

from pathlib import Path

from ailab.runtimes.base import Runtime
from ailab.runtimes.process import ProcessRuntime

RUNTIMES: dict[str, type[ProcessRuntime]] = {ProcessRuntime.name: ProcessRuntime}


def make_runtime(name: str, tasks_folder: Path) -> Runtime:
    """The runtime that lab.toml names; `tasks_folder` is where it may keep state."""
    return RUNTIMES[name](tasks_folder)
