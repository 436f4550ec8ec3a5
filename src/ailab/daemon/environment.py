"""What follows when a lab's environment is switched: new kernels carry its name, and its bytecode is compiled."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from ailab.access.services import base_environment
from ailab.daemon.supervisor import Supervisor
from ailab.environments import bytecode
from ailab.environments.generations import Generation
from ailab.environments.kernel import write_workspace_kernel
from ailab.events import record
from ailab.lab import Lab
from ailab.runtimes.base import TaskKind, TaskSpec

# The first cells of a new environment come first; compiling takes half a minute of one CPU.
COMPILE_AFTER_SECONDS = 20.0


class EnvironmentWatch:
    """Looks at the link to the current generation; a switch, by whatever command, is an event."""

    def __init__(self, lab: Lab, supervisor: Supervisor) -> None:
        self._lab = lab
        self._supervisor = supervisor
        self._target = ""
        self._generation: Generation | None = None
        self._compile_at = float("inf")

    def look(self) -> None:
        target = _target(self._lab)
        if target != self._target:
            before, self._generation = self._generation, self._lab.generations.current()
            if self._generation is not None:
                write_workspace_kernel(self._lab.paths, self._generation.title)
                self._compile_at = time.monotonic() + COMPILE_AFTER_SECONDS
            if self._target:
                self._note(before, self._generation)
            self._target = target
        if self._generation is not None and time.monotonic() >= self._compile_at:
            if not bytecode.is_compiled(self._generation):
                self._supervisor.want(_compile_spec(self._generation), owner="", actor="daemon")
            self._compile_at = float("inf")

    def _note(self, before: Generation | None, after: Generation | None) -> None:
        switch: dict[str, Any] = next(reversed(self._lab.generations.history()), {})
        with self._lab.store.engine.begin() as connection:
            record(
                connection,
                actor=str(switch.get("who", "?")),
                kind="environment",
                subject=self._lab.settings.lab.name,
                before=before.id if before else None,
                after=after.id if after else None,
                detail={"reason": switch.get("why", "")},
            )


def _target(lab: Lab) -> str:
    try:
        return str(lab.paths.current.readlink())
    except OSError:
        return ""


def _compile_spec(generation: Generation) -> TaskSpec:
    return TaskSpec(
        id="bytecode",
        name="bytecode",
        kind=TaskKind.chore,
        command=(sys.executable, "-P", "-m", "ailab.environments.bytecode", generation.folder),
        environment=base_environment(os.environ),
        cwd="/",
        restart=False,
    )
