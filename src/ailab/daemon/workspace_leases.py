"""What workspaces hold of the machine: leases from the same ledger as jobs', for as long as the workspace is wanted."""

from __future__ import annotations

import time

from ailab.daemon.parts import Parts
from ailab.errors import Conflict
from ailab.i18n import _
from ailab.resources.ledger import Lease, room
from ailab.runtimes.base import TaskKind, TaskSpec


def reserve(parts: Parts, spec: TaskSpec, owner: str) -> None:
    """Give a workspace its lease before it starts: the CPUs and the memory that lab.toml limits it to, nothing where it
    is not limited. Raises `Conflict` where others hold too much for it."""
    held = {lease.task: lease for lease, _since in parts.jobs.leases()}
    if spec.id in held:
        return
    there = room(parts.worker.capacity, held.values())
    if spec.cpus > there.cpus or spec.memory_bytes > there.memory_bytes:
        raise Conflict(
            _("There is no room for the workspace now: jobs and other workspaces hold the machine."),
            remedy=_("See who: ailab top. Wait, or stop a job: ailab stop JOB"),
        )
    parts.jobs.keep_lease(_lease(spec, owner), since=time.time())


def settle(parts: Parts) -> None:
    """Free what a workspace holds that is wanted no more, and note what one holds that came back by itself."""
    leases = {lease.task: lease for lease, _since in parts.jobs.leases()}
    wanted = {
        task.spec.id: task for task in parts.supervisor.tasks() if task.spec.kind == TaskKind.workspace and task.wanted
    }
    for gone in leases.keys() - wanted.keys():
        if gone.startswith("workspace-"):
            parts.jobs.free(gone, parts.worker.capacity)
    for name, task in wanted.items():
        if name not in leases:
            parts.jobs.keep_lease(_lease(task.spec, task.owner), since=time.time())


def _lease(spec: TaskSpec, owner: str) -> Lease:
    return Lease(spec.id, owner, spec.cpus, spec.memory_bytes)
