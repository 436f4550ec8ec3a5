"""The rows of jobs and leases as data. A row that another ailab wrote is read as far as it can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import RowMapping

from ailab.jobs.gangs import Member, check_strategy, members
from ailab.jobs.model import JobRequest, JobState
from ailab.jobs.scheduling import decayed
from ailab.resources.ledger import Lease

_WHOLE = ("id", "priority", "exit_status", "attempt", "failures", "repeats", "array", "part")
_TIMES = ("submitted_at", "not_before", "started_at", "ended_at")
_NEEDS = ("cpus", "memory_bytes", "gpus", "priority", "failures")


@dataclass(frozen=True)
class Job:
    """A job as it stands in the store. Times are seconds since the epoch."""

    id: int
    name: str
    owner: str
    state: str
    request: JobRequest
    snapshot: dict[str, Any] = field(repr=False)
    priority: int
    submitted_at: float
    not_before: float
    started_at: float | None
    ended_at: float | None
    exit_status: int | None
    reason: str
    note: str
    attempt: int
    failures: int
    asked: str
    ports: Sequence[int]
    repeats: int | None
    array: int | None
    part: int | None

    @property
    def members(self) -> tuple[Member, ...]:
        return members(self.id, self.request.strategy, self.request.workers)

    @classmethod
    def of(cls, row: RowMapping) -> Job:
        """Raises one of `READ_ERRORS` for a row of a form that this ailab does not know."""
        values = {name: row[name] for name in cls.__dataclass_fields__ if name != "request"}
        job = cls(**values, request=JobRequest.from_json(row["request"]))
        JobState(job.state)
        check_strategy(job.request.strategy, job.request.workers)
        _check_kinds(row, _WHOLE, int)
        _check_kinds(row, _TIMES, (int, float))
        _check_kinds(row, ("name", "owner", "reason", "note", "asked"), str)
        if not isinstance(job.snapshot, dict) or not isinstance(job.ports, list):
            raise TypeError("snapshot or ports")
        return job


@dataclass(frozen=True)
class Holding:
    """What is looked at many times a second of a job that holds leases."""

    id: int
    state: str
    attempt: int
    asked: str
    started_at: float | None
    workers: int
    strategy: str

    @property
    def members(self) -> tuple[Member, ...]:
        return members(self.id, self.strategy, self.workers)

    @classmethod
    def of(cls, row: RowMapping) -> Holding:
        check_strategy(row["strategy"], row["workers"])
        _check_kinds(row, ("id", "attempt"), int)
        _check_kinds(row, ("started_at",), (int, float))
        return cls(**row)


@dataclass(frozen=True)
class Ended:
    """A job that has ended, and when, in seconds since the epoch."""

    id: int
    ended_at: float


@dataclass(frozen=True)
class End:
    """How an attempt of a job ended."""

    state: JobState
    reason: str = ""
    note: str = ""
    exit_status: int | None = None
    started_at: float | None = None
    ended_at: float | None = None


def waiting_row(row: RowMapping) -> RowMapping:
    """A row of `Jobs.queued`, if what the scheduler needs of it can be read."""
    check_strategy(row["strategy"], row["workers"])
    _check_kinds(row, _NEEDS, int)
    _check_kinds(row, ("gpu_fraction", "submitted_at", "not_before"), (int, float))
    return row


def lease_of(row: RowMapping) -> tuple[Lease, float]:
    return Lease.from_json(dict(row)), float(row["since"])


def used_at(row: RowMapping, now: float) -> float:
    return decayed(float(row["used"]), max(0.0, now - float(row["at"])))


def _check_kinds(row: RowMapping, names: Sequence[str], kind: Any) -> None:
    for name in names:
        if row[name] is not None and not isinstance(row[name], kind):
            raise TypeError(f"{name} is {type(row[name]).__name__}")
