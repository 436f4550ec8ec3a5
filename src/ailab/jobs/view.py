"""A job and a lease as the API shows them: plain JSON, no secret."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ailab import files
from ailab.i18n import _
from ailab.jobs.gangs import network
from ailab.jobs.model import JobState
from ailab.jobs.queue import Job
from ailab.paths import JOB_REMOVED, LabPaths
from ailab.resources.ledger import Lease


def job_json(job: Job, blocked: dict[int, str], lab: LabPaths) -> dict[str, Any]:
    """Variables are there by name alone. `waits_for` says why a queued job does not run: cpus, memory, gpus, turn,
    time, jobs."""
    request = job.request
    asked = {
        "workers": request.workers,
        "strategy": request.strategy,
        "insecure_ports": request.insecure_ports,
        "cpus": request.cpus,
        "memory_bytes": request.memory_bytes,
        "gpus": request.gpus,
        "gpu_fraction": request.gpu_fraction,
        "retries": request.retries,
        "timeout": request.timeout,
        "grace": request.grace,
        "resume": request.resume,
        "seed": request.seed,
        "after": [f"{one.job}:{one.on}" for one in request.after],
        "variables": sorted(request.variables),
        "inputs": list(request.inputs),
    }
    return {
        "id": job.id,
        "name": job.name,
        "owner": job.owner,
        "state": job.state,
        "reason": job.reason,
        "note": job.note,
        "waits_for": _waits_for(job, blocked),
        "exit_status": job.exit_status,
        "priority": job.priority,
        "command": list(request.command),
        "cwd": request.cwd,
        "submitted_at": _time(job.submitted_at),
        "not_before": _time(job.not_before or None),
        "started_at": _time(job.started_at),
        "ended_at": _time(job.ended_at),
        "attempt": job.attempt,
        "failures": job.failures,
        "stopping": bool(job.asked) and job.state in (JobState.starting, JobState.running),
        "repeats": job.repeats,
        "array": job.array,
        "part": job.part,
        "asked": asked,
        "network": network(request.strategy, request.insecure_ports),
        "members": [{"name": one.name, "task": one.task} for one in job.members],
        "log": str(lab.tasks / job.members[0].task / "log"),
        "files_removed": files_removed(job.id, lab),
    }


def files_removed(job: int, lab: LabPaths) -> dict[str, Any] | None:
    """When and why what the job had left was removed: `at` (ISO 8601) and `why`, `age` or `size`. None where it was
    not."""
    found = files.read_json(lab.jobs / str(job) / JOB_REMOVED)
    return None if found is None else {"at": str(found.get("at", "")), "why": str(found.get("why", ""))}


def removed_note(job: int, removed: dict[str, Any]) -> str:
    return _(
        "The output and checkpoints of job {id} were removed on {date}; [jobs] in lab.toml says what is kept."
    ).format(id=job, date=removed["at"][:10])


def _waits_for(job: Job, blocked: dict[int, str]) -> str:
    if job.state != JobState.queued:
        return ""
    if job.id in blocked:
        return blocked[job.id]
    if job.not_before > datetime.now(UTC).timestamp():
        return "time"
    return "jobs" if job.request.after else "turn"


def lease_json(lease: Lease, since: float) -> dict[str, Any]:
    return {
        "task": lease.task,
        "owner": lease.owner,
        "cpus": lease.cpus,
        "memory_bytes": lease.memory_bytes,
        "gpus": [{"id": gpu, "share": share} for gpu, share in lease.gpus],
        "since": _time(since),
    }


def _time(at: float | None) -> str | None:
    """ISO 8601 in UTC, as all times of the API."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
