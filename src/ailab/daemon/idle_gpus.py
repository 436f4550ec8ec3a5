"""Has workspaces in which nobody works give their GPUs to jobs that wait, after notice, and have them back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from ailab.daemon import workspace_leases
from ailab.daemon.idleness import Idleness
from ailab.daemon.parts import Parts
from ailab.daemon.supervisor import Task
from ailab.i18n import _
from ailab.jobs.yielding import Holder, Moves, free_gpus, moves
from ailab.runtimes.base import TaskState

LOOK_SECONDS = 10.0
ASKED, KEPT, LENT, RETURNED = "gpus-asked", "gpus-kept", "gpus-lent", "gpus-returned"


class IdleGpus:
    """Notice is kept in memory: a daemon that has just started gives it again."""

    def __init__(self, parts: Parts, clock: Callable[[], float] = time.monotonic) -> None:
        self._parts = parts
        self._resources = parts.lab.settings.resources
        self._clock = clock
        self._idleness = Idleness(parts.lab.paths, parts.lab.runtime, clock)
        # Since when a workspace has notice, and in which words.
        self._told: dict[str, tuple[float, str]] = {}

    def decide(self) -> None:
        """One look, and what follows from it. Takes as long as workspaces take to stop."""
        parts = self._parts
        running = [task for task in workspace_leases.workspaces(parts) if task.seen.state == TaskState.running]
        there = {task.spec.id for task in running}
        self._told = {name: told for name, told in self._told.items() if name in there}
        idle = self._idle(running)
        with parts.jobs.leasing:
            wanting = parts.worker.wants_gpus
            todo = moves(
                self._clock(),
                parts.worker.capacity,
                [lease for lease, _since in parts.jobs.leases()],
                () if wanting is None else wanting[1],
                [self._holder(task, idle.get(task.spec.id, 0.0)) for task in running],
                idle_seconds=self._resources.gpu_idle_minutes * 60.0,
                notice_seconds=self._resources.gpu_notice_minutes * 60.0,
            )
            gpus = self._apply(todo, running)
        self._note(todo, 0 if wanting is None else wanting[0])
        for task in running:
            name = task.spec.id
            self._parts.supervisor.tell(name, self._said(name, len(gpus[name])))
            # The second: a daemon was killed between the change and the restart.
            if gpus[name] != (task.spec.gpus or ()) or (name in idle and self._is_stale(task)):
                reason = LENT if len(gpus[name]) < len(workspace_leases.runs_with(parts, task)) else RETURNED
                parts.supervisor.restart(name, reason=reason)

    def _idle(self, running: Sequence[Task]) -> dict[str, float]:
        """The seconds for which nobody has worked in those where nobody does. Asked only where something hangs on it: a
        job waits for what workspaces hold, or one lacks what is free."""
        parts, shortest = self._parts, self._resources.gpu_idle_minutes * 60.0
        leases = [lease for lease, _since in parts.jobs.leases()]
        free = free_gpus(parts.worker.capacity, leases, 1, workspace_leases.may_have(parts))
        found = {}
        for task in running if shortest else ():
            holds = task.spec.gpus or ()
            lacks = bool(free) and len(holds) < workspace_leases.wanted_gpus(parts)
            if (holds and parts.worker.wants_gpus is not None) or lacks or self._is_stale(task):
                found[task.spec.id] = self._idleness.seconds(task)
        return {name: seconds for name, seconds in found.items() if seconds >= shortest}

    def _is_stale(self, task: Task) -> bool:
        """Whether it runs with other GPUs than it would be started with."""
        return workspace_leases.runs_with(self._parts, task) != (task.spec.gpus or ())

    def _holder(self, task: Task, idle: float) -> Holder:
        parts, told = self._parts, self._told.get(task.spec.id)
        wants, may_have = workspace_leases.wanted_gpus(parts), workspace_leases.may_have(parts)
        return Holder(task.spec.id, wants, idle, None if told is None else told[0], may_have)

    def _apply(self, todo: Moves, running: Sequence[Task]) -> Mapping[str, tuple[str, ...]]:
        """Write down with which GPUs each workspace is started next; with which each is. A lease grows now; it shrinks
        once the workspace has ended (`workspace_leases.settle`)."""
        parts = self._parts
        changed = dict(todo.give) | dict.fromkeys(todo.take, ())
        for task in running:
            gpus = changed.get(task.spec.id)
            if gpus:
                parts.jobs.free(task.spec.id, parts.worker.capacity)
                parts.jobs.keep_lease(workspace_leases.lease_of(task.spec, task.owner, gpus), since=time.time())
            if gpus is not None:
                parts.supervisor.respecify(replace(task.spec, gpus=gpus))
        return {task.spec.id: task.spec.gpus or () for task in running} | changed

    def _note(self, todo: Moves, job: int) -> None:
        """Each move is an event; a notice is kept until it has become something else."""
        supervisor, minutes = self._parts.supervisor, self._resources.gpu_notice_minutes
        for name in todo.tell:
            self._told[name] = (self._clock(), _notice(job, minutes))
            supervisor.note(name, ASKED, {"reason": f"job-{job}", "minutes": minutes})
        for name in (*todo.withdraw, *todo.take):
            self._told.pop(name, None)
        for name in todo.withdraw:
            supervisor.note(name, KEPT, {})
        for name in todo.take:
            supervisor.note(name, LENT, {"reason": f"job-{job}"})
        for name, gpus in todo.give.items():
            supervisor.note(name, RETURNED, {"gpus": list(gpus)})

    def _said(self, name: str, holds: int) -> str:
        """What stands beside a workspace's state."""
        if name in self._told:
            return self._told[name][1]
        if holds >= workspace_leases.wanted_gpus(self._parts):
            return ""
        return _(
            "Others hold this workspace's GPUs. They come back when they are free and nobody works here, or when you "
            "stop and start it."
        )


def _notice(job: int, minutes: int) -> str:
    """In 140 characters, which is what JupyterLab shows of a notice."""
    return _(
        "Job {job} waits for a GPU. Run a cell to keep yours: at {at} this workspace starts anew without it, which "
        "ends its kernels."
    ).format(job=job, at=f"{datetime.now() + timedelta(minutes=minutes):%H:%M}")
