"""What the API and the portal show of jobs: the rows, and how far those that run have come."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from ailab.daemon.comparison import curves_of, links
from ailab.daemon.parts import Parts
from ailab.i18n import _
from ailab.jobs import progress
from ailab.jobs.model import JobState
from ailab.jobs.output import Output
from ailab.jobs.queue import Job
from ailab.jobs.view import job_json, lease_json, removed_note
from ailab.paths import JOB_PROGRESS
from ailab.resources.gpu_load import gpu_loads

CURVES_SHOWN = 8
LINES_AT_ONCE = 5000


def job_list(parts: Parts, jobs: list[Job]) -> dict[str, Any]:
    """Jobs, and how many there are in each state."""
    blocked = dict(parts.worker.blocked)
    return {"counts": parts.jobs.counts(), "jobs": [_shown(parts, job, blocked) for job in jobs]}


def one_job(parts: Parts, job: int, *, curves: bool = False) -> dict[str, Any]:
    """One job; with `curves` what it has reported, by metric: pairs of where and how much (None: no finite number)."""
    found = parts.jobs.get(job)
    shown = _shown(parts, found, dict(parts.worker.blocked))
    shown["links"] = links(parts, found)
    if curves:
        reported = curves_of(parts, job)
        shown["curves"] = {name: _finite(reported[name]) for name in list(reported)[:CURVES_SHOWN]}
    return shown


def job_log(parts: Parts, job: int, member: int, after: int) -> dict[str, Any]:
    """The lines of the output of a job's member after the first `after` that are kept: at most `LINES_AT_ONCE` of them,
    how many there are up to there, and whether there are `more`."""
    parts.jobs.get(job)
    lines: list[str] = []
    there, more = 0, False
    for line in Output(parts.lab.runtime, job, member).lines():
        if more := len(lines) == LINES_AT_ONCE:
            break
        there += 1
        if there > after:
            lines.append(line)
    return {"lines": lines, "next": there, "more": more}


def progress_file(parts: Parts, job: int) -> Path:
    return parts.lab.paths.jobs / str(job) / JOB_PROGRESS


def _shown(parts: Parts, job: Job, blocked: dict[int, str]) -> dict[str, Any]:
    failing = parts.worker.error(job.id)
    troubles = (
        [_("Starting or stopping it fails and is tried again: {reason}").format(reason=failing)] if failing else []
    )
    if unknown := parts.worker.unknown(job.id):
        troubles.append(_("Whether {task} runs cannot be told: {reason}").format(task=job.name, reason=unknown))
    shown = job_json(job, blocked, parts.lab.paths) | {"progress": None, "troubles": troubles}
    if shown["files_removed"] is not None:
        shown["note"] = f"{job.note} {removed_note(job.id, shown['files_removed'])}".strip()
    if job.started_at is None:
        return shown
    reported = progress.read(progress_file(parts, job.id), progress.TAIL_BYTES)
    if reported is None:
        return shown
    shown["progress"] = {
        "fraction": reported.fraction,
        "eta_seconds": reported.eta_seconds if job.state == JobState.running else None,
        "metrics": {name: value if math.isfinite(value) else None for name, value in reported.latest.items()},
        "text": progress.bar(reported, 60),
    }
    if job.state == JobState.running:
        shown["troubles"] += [event.sentence() for event in progress.events_of(reported, time.time())]
    return shown


def _finite(series: list[tuple[float, float]]) -> list[tuple[float, float | None]]:
    return [(where, value if math.isfinite(value) else None) for where, value in series]


def lease_view(parts: Parts) -> dict[str, Any]:
    """Who holds what and uses how much of it, what there is, and what each user has used of it."""
    capacity = parts.worker.capacity
    held = [lease_json(lease, since) | _used(parts, lease.task) for lease, since in parts.jobs.leases()]
    total = {"cpus": capacity.cpus, "memory_bytes": capacity.memory_bytes, "gpus": [gpu.id for gpu in capacity.gpus]}
    notes = [task.to_json() for task in parts.supervisor.tasks() if task.said]
    return {
        "capacity": total,
        "leases": held,
        "gpus": _gpus(parts),
        "notes": [{"task": task["id"], "note": task["note"]} for task in notes],
        "usage": parts.jobs.usage(time.time()),
        "counts": parts.jobs.counts(),
    }


def _used(parts: Parts, task: str) -> dict[str, Any]:
    used = parts.measured.usage(task, parts.lab.runtime.poll(task).state)
    return {"cpu_percent": used["cpu_percent"], "memory_used_bytes": used["memory_bytes"]}


def _gpus(parts: Parts) -> list[dict[str, Any]]:
    """Each GPU, and what it has to do: null where the driver does not tell."""
    loads = {load.id: load for load in gpu_loads()}
    names = {str(gpu.index): gpu.name for gpu in parts.measured.machine.gpus}
    return [
        {
            "id": gpu.id,
            "name": names.get(gpu.id, ""),
            "memory_bytes": gpu.memory_bytes,
            "percent": loads[gpu.id].percent if gpu.id in loads else None,
            "memory_used_bytes": loads[gpu.id].memory_bytes if gpu.id in loads else None,
        }
        for gpu in parts.worker.capacity.gpus
    ]
