"""What workspaces hold of the machine: leases from the same ledger as jobs', for as long as the workspace is wanted.

A lease covers what the workspace runs with and what it is started with next: whatever moment a kill comes at, no GPU
that a workspace sees is another's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from ailab.daemon.parts import Parts
from ailab.daemon.supervisor import Task
from ailab.errors import Conflict, NotFound
from ailab.i18n import _
from ailab.jobs.yielding import free_gpus
from ailab.resources.ledger import Lease, room
from ailab.runtimes.base import TaskKind, TaskSpec, TaskState

# A lease is given before the workspace is wanted, which for one that ran otherwise takes as long as its stop.
NEW_SECONDS = 30.0


def reserve(parts: Parts, spec: TaskSpec, owner: str) -> TaskSpec:
    """Give a workspace its lease before it starts: the CPUs and the memory that lab.toml limits it to, nothing where it
    is not limited, and of its own GPUs as many as are free. What it is to be started with. Raises `Conflict` where
    others hold too much for it."""
    with parts.jobs.leasing:
        held = {lease.task: lease for lease, _since in parts.jobs.leases()}
        if spec.id in held and _is_wanted(parts, spec.id):
            return with_own_gpus(parts, spec)
        if held.pop(spec.id, None) is not None:
            parts.jobs.free(spec.id, parts.worker.capacity)
        there = room(parts.worker.capacity, held.values())
        if spec.cpus > there.cpus or spec.memory_bytes > there.memory_bytes:
            raise Conflict(
                _("There is no room for the workspace now: jobs and other workspaces hold the machine."),
                remedy=_("See who: ailab top. Wait, or stop a job: ailab stop JOB"),
            )
        gpus = free_gpus(parts.worker.capacity, list(held.values()), wanted_gpus(parts), may_have(parts))
        parts.jobs.keep_lease(lease_of(spec, owner, gpus), since=time.time())
        return replace(spec, gpus=gpus) if parts.lab.settings.resources.own_gpus else spec


def with_own_gpus(parts: Parts, spec: TaskSpec) -> TaskSpec:
    """A workspace's specification with the GPUs that it holds, where it holds its own."""
    if not parts.lab.settings.resources.own_gpus:
        return spec
    leases = {lease.task: lease for lease, _since in parts.jobs.leases()}
    held = leases[spec.id].gpus if spec.id in leases else ()
    return replace(spec, gpus=tuple(gpu for gpu, _share in held))


def settle(parts: Parts) -> None:
    """Free what a workspace holds that is wanted no more, or is not started with any more, and note what one holds that
    came back by itself."""
    now = time.time()
    with parts.jobs.leasing:
        held = parts.jobs.leases()
        leases = {lease.task: lease for lease, _since in held}
        wanted = {task.spec.id: task for task in workspaces(parts)}
        for lease, since in held:
            is_new = 0 <= now - since < NEW_SECONDS
            if lease.task.startswith("workspace-") and lease.task not in wanted and not is_new:
                parts.jobs.free(lease.task, parts.worker.capacity)
                parts.worker.plan_soon()
        for name, task in wanted.items():
            own = _own_gpus(parts, task)
            if name in leases and {gpu for gpu, _share in leases[name].gpus} == set(own):
                continue
            if name in leases:
                parts.jobs.free(name, parts.worker.capacity)
                parts.worker.plan_soon()
            parts.jobs.keep_lease(lease_of(task.spec, task.owner, own), since=now)


def workspaces(parts: Parts) -> list[Task]:
    return [task for task in parts.supervisor.tasks() if task.spec.kind == TaskKind.workspace and task.wanted]


def may_have(parts: Parts) -> tuple[str, ...] | None:
    """The GPUs of which a workspace may hold some; None: all."""
    listed = parts.lab.settings.resources.gpus
    return None if listed == "all" else tuple(listed)


def wanted_gpus(parts: Parts) -> int:
    """How many GPUs of its own a workspace is to have, as far as there are so many."""
    listed = may_have(parts)
    there = [gpu.id for gpu in parts.worker.capacity.gpus if listed is None or gpu.id in listed]
    return min(parts.lab.settings.resources.own_gpus, len(there))


def runs_as(parts: Parts, task: Task) -> TaskSpec | None:
    """What a workspace was started with, which may differ from its next start; None for one that does not run."""
    if task.seen.state not in (TaskState.running, TaskState.starting, TaskState.unknown):
        return None
    return parts.lab.runtime.spec(task.spec.id)


def runs_with(parts: Parts, task: Task) -> tuple[str, ...]:
    """The GPUs that a workspace was started with, which may be others than those of its next start."""
    started = runs_as(parts, task)
    return started.gpus or () if started is not None else ()


def lease_of(spec: TaskSpec, owner: str, gpus: Sequence[str]) -> Lease:
    return Lease(spec.id, owner, spec.cpus, spec.memory_bytes, tuple((gpu, 1.0) for gpu in gpus))


def _own_gpus(parts: Parts, task: Task) -> tuple[str, ...]:
    if not parts.lab.settings.resources.own_gpus:
        return ()
    return tuple(dict.fromkeys((*(task.spec.gpus or ()), *runs_with(parts, task))))


def _is_wanted(parts: Parts, task_id: str) -> bool:
    try:
        return parts.supervisor.task(task_id).wanted
    except NotFound:
        return False
