"""Jobs: submitted, looked at, stopped; and who holds what."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from ailab.daemon.comparison import comparison
from ailab.daemon.job_views import job_list, job_log, lease_view, one_job
from ailab.daemon.parts import Parts
from ailab.errors import Conflict
from ailab.i18n import _
from ailab.jobs import schedules
from ailab.jobs.code_store import CodeStore
from ailab.jobs.differences import diff
from ailab.jobs.gangs import network
from ailab.jobs.snapshots import Snapshot
from ailab.jobs.wish import JobWish
from ailab.resources.ledger import Need, refuse_never
from ailab.validation import RowId
from ailab.working import refuse_impossible, refuse_network, refuse_strategy

router = APIRouter(tags=["jobs"])


class Submission(BaseModel):
    """A wish, and whose it is."""

    owner: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    wish: JobWish


class Stop(BaseModel):
    """Who stops a job."""

    actor: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")


def _parts(request: Request) -> Parts:
    return request.app.state.parts  # type: ignore[no-any-return]  # Starlette's state is untyped


@router.post("/jobs")
def submit(request: Request, submission: Submission) -> dict[str, Any]:
    """Queue a job, or the parts of an array, or note a schedule. Answers with their ids, and the network of the workers
    where they connect to each other."""
    return submitted(_parts(request), submission.owner, submission.wish)


def submitted(parts: Parts, owner: str, wish: JobWish) -> dict[str, Any]:
    """Queue what `owner` wishes; as `submit` answers."""
    refuse_impossible(parts.lab.paths, wish.cwd, tuple(wish.command))
    refuse_strategy(parts.lab, wish)
    capacity = parts.worker.capacity
    cpus = wish.cpus or default_cpus(parts, wish.gpus, wish.workers)
    wanted = wish.requests(cpus=cpus)
    one = wanted[0]
    refuse_never(capacity, *(Need(one.cpus, one.memory_bytes, one.gpus, one.gpu_fraction),) * one.workers)
    if wish.every:
        schedule = schedules.add(parts.lab.store, wish, owner=owner, cpus=cpus)
        return {"schedule": schedule, "jobs": [], "network": network(one.strategy, one.insecure_ports)}
    ids = parts.jobs.submit(wanted, owner=owner, actor=owner)
    return {"schedule": None, "jobs": ids, "network": network(one.strategy, one.insecure_ports)}


def default_cpus(parts: Parts, gpus: int, workers: int) -> int:
    """The CPUs of each worker of a job that asks for none: what goes with its GPUs, so that the other GPUs find some,
    too; where it has no GPU all of them, for the job is to be as quick as without a queue. What workspaces hold they
    may hold for days: who asks for nothing is not to wait for that."""
    capacity = parts.worker.capacity
    held = sum(lease.cpus for lease, _since in parts.jobs.leases() if not lease.task.startswith("job-"))
    free, of_gpus = max(1, capacity.cpus - held), len(capacity.gpus)
    return max(1, free * gpus // of_gpus if gpus and of_gpus else free // workers)


@router.get("/jobs")
def list_jobs(
    request: Request, state: str = "", owner: str = "", name: str = "", array: RowId | None = None, limit: int = 50
) -> dict[str, Any]:
    """The newest jobs (of the states that `state` names, with commas), and how many there are in each state."""
    parts = _parts(request)
    states = [one for one in state.split(",") if one]
    limit = max(1, min(limit, 100_000))
    return job_list(parts, parts.jobs.find(states=states, owner=owner, name=name, array=array, limit=limit))


@router.get("/jobs/{job}")
def get_job(request: Request, job: RowId) -> dict[str, Any]:
    return one_job(_parts(request), job)


@router.get("/jobs/{job}/log")
def get_log(request: Request, job: RowId, member: int = 0, after: int = 0) -> dict[str, Any]:
    """The lines of its output, or of one of its workers, that are kept after the first `after`; those of all attempts
    are counted."""
    return job_log(_parts(request), job, max(0, member), max(0, after))


@router.post("/jobs/{job}/stop")
def stop(request: Request, job: RowId, wanted: Stop) -> dict[str, Any]:
    """Have a job end. Answers at once; one that runs has its grace to save its state."""
    parts = _parts(request)
    parts.jobs.ask_to_stop(job, wanted.actor, actor=wanted.actor)
    return get_job(request, job)


@router.post("/jobs/{job}/rerun")
def rerun(request: Request, job: RowId, wanted: Stop) -> dict[str, Any]:
    """Queue a job that runs exactly what another has run: its code, its environment, its arguments and seed."""
    return repeated(_parts(request), wanted.actor, job)


def repeated(parts: Parts, user: str, job: int) -> dict[str, Any]:
    """Queue for `user` what a job has run; as `submit` answers."""
    before = parts.jobs.get(job)
    code, generation = before.snapshot.get("code", ""), before.snapshot.get("generation", "")
    if not code:
        raise Conflict(
            _("What job {id} runs has not been written down: {reason}").format(
                id=job, reason=before.snapshot.get("problem") or before.state
            ),
            remedy=_("It is when a job starts; submit it anew with: ailab run"),
        )
    parts.lab.generations.get(generation)
    # Nobody collects it before the new job is written down.
    CodeStore(parts.lab.paths.snapshots).use_anew(code)
    connected = network(before.request.strategy, before.request.insecure_ports)
    refuse_network(parts.lab, connected)
    again = replace(before.request, code=code, generation=generation, after=(), not_before=0.0)
    ids = parts.jobs.submit([again], owner=user, actor=user, snapshot=before.snapshot, repeats=job)
    return {"schedule": None, "jobs": ids, "network": connected}


@router.get("/jobs/{job}/diff/{other}")
def diff_jobs(request: Request, job: RowId, other: RowId) -> dict[str, Any]:
    """What the second has run otherwise than the first."""
    parts = _parts(request)
    first, second = (_snapshot_of(parts, one) for one in (job, other))
    return diff(first, second, CodeStore(parts.lab.paths.snapshots)).to_json()


@router.get("/comparison")
def compare_jobs(request: Request, job: Annotated[list[RowId], Query()]) -> dict[str, Any]:
    """Several jobs beside each other: what differs, what each metric came to, the curves."""
    return comparison(_parts(request), job)


def _snapshot_of(parts: Parts, job: int) -> Snapshot:
    known = parts.jobs.get(job).snapshot
    if "code" not in known:
        raise Conflict(_("What job {id} runs has not been written down: it has not begun.").format(id=job))
    return Snapshot.from_json(known)


@router.get("/schedules")
def list_schedules(request: Request) -> list[dict[str, Any]]:
    return schedules.all_of(_parts(request).lab.store)


@router.delete("/schedules/{schedule}")
def remove_schedule(request: Request, schedule: RowId) -> None:
    schedules.remove(_parts(request).lab.store, schedule)


@router.get("/leases")
def list_leases(request: Request) -> dict[str, Any]:
    """Who holds what, what there is, and what each user has used of it."""
    return lease_view(_parts(request))
