"""The jobs of a lab, durably: each change of a job is one transaction, with its event and its leases."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from ailab.errors import Conflict, NotFound, UsageError
from ailab.events import last_of, record
from ailab.i18n import _
from ailab.jobs.gangs import task_prefix
from ailab.jobs.model import ENDED, HOLDING, LIVE, After, EndReason, JobRequest, JobState
from ailab.jobs.rows import End as End
from ailab.jobs.rows import Ended as Ended
from ailab.jobs.rows import Holding as Holding
from ailab.jobs.rows import Job as Job
from ailab.jobs.rows import lease_of, used_at, waiting_row
from ailab.jobs.scheduling import charge
from ailab.resources.ledger import Capacity, Lease
from ailab.store import Store
from ailab.store import jobs as table
from ailab.store import leases as lease_table
from ailab.store import usage as usage_table
from ailab.unreadable import READ_ERRORS, unreadable

logger = logging.getLogger(__name__)
_LARGE = {"request", "snapshot"}


class Jobs:
    """All changes of jobs and of leases. Callers may be on any thread; each call is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._engine = store.engine
        self._unreadable = store.unreadable
        # Set when somebody should look at the queue; `_touched` are the jobs that came to it or may have left it.
        self.changed = threading.Event()
        self._touched: set[int] = set()
        self._lock = threading.Lock()
        # Held by whoever reads the leases to give one, until it is given: nobody is given what another has just got.
        self.leasing = threading.RLock()

    def submit(
        self,
        requests: Sequence[JobRequest],
        *,
        owner: str,
        actor: str,
        snapshot: Mapping[str, Any] | None = None,
        repeats: int | None = None,
    ) -> list[int]:
        """Queue jobs, all or none; more than one are the parts of an array. Their ids.

        Raises `UsageError` for a job to come after that there is not.
        """
        with self._engine.begin() as connection:
            self._check_after(connection, requests)
            ids: list[int] = []
            for part, request in enumerate(requests, 1):
                values = _row_of(request) | {"owner": owner, "snapshot": dict(snapshot or {}), "repeats": repeats}
                if len(requests) > 1:
                    values |= {"array": ids[0] if ids else None, "part": part}
                made = connection.execute(insert(table).values(**values)).inserted_primary_key
                assert made is not None, "SQLite numbers the rows"
                ids.append(int(made[0]))
            if len(ids) > 1:
                connection.execute(update(table).where(table.c.id == ids[0]).values(array=ids[0]))
            subject = task_prefix(ids[0]) + (f"..{ids[-1]}" if len(ids) > 1 else "")
            detail = {"name": requests[0].name, "count": len(ids)}
            record(connection, actor=actor, kind="job", subject=subject, after=JobState.queued, detail=detail)
        self._touch(*ids)
        return ids

    def _check_after(self, connection: Connection, requests: Sequence[JobRequest]) -> None:
        wanted = {after.job for request in requests for after in request.after}
        known = set(connection.execute(select(table.c.id).where(table.c.id.in_(wanted))).scalars()) if wanted else set()
        for missing in sorted(wanted - known):
            raise UsageError(
                _("There is no job {id} to come after.").format(id=missing), remedy=_("See those there are: ailab jobs")
            )

    def get(self, job: int) -> Job:
        with self._engine.connect() as connection:
            row = connection.execute(select(table).where(table.c.id == job)).mappings().first()
        if row is None:
            raise self._not_found(job)
        try:
            return Job.of(row)
        except READ_ERRORS as error:
            self._unreadable.note(f"jobs {job}", error)
            raise unreadable(f"jobs {job}", error) from None

    def _not_found(self, job: int) -> NotFound:
        gone = last_of(self._store, "job-row", task_prefix(job))
        if gone is None:
            return NotFound(_("There is no job {id}.").format(id=job), remedy=_("See those there are: ailab jobs"))
        return NotFound(
            _("Job {id} was removed on {date}, long after its end.").format(id=job, date=gone["at"][:10]),
            remedy=_("See those there are: ailab jobs"),
        )

    def find(
        self, *, states: Sequence[str] = (), owner: str = "", name: str = "", array: int | None = None, limit: int = 100
    ) -> list[Job]:
        """The newest first."""
        query = select(table).order_by(table.c.id.desc()).limit(limit)
        if states:
            query = query.where(table.c.state.in_(states))
        if owner:
            query = query.where(table.c.owner == owner)
        if name:
            query = query.where(table.c.name.like(f"%{name}%"))
        if array is not None:
            query = query.where(table.c.array == array)
        with self._engine.connect() as connection:
            rows = list(connection.execute(query).mappings())
        return self._unreadable.read("jobs", rows, Job.of)

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(table.c.state, func.count()).group_by(table.c.state))
            return {str(state): int(count) for state, count in rows}

    def ended_since(self, moment: float) -> list[int]:
        """The jobs that have ended since then, the first to end first."""
        query = select(table.c.id).where(table.c.state.in_(ENDED), table.c.ended_at >= moment)
        with self._engine.connect() as connection:
            return [int(job) for job in connection.execute(query.order_by(table.c.ended_at)).scalars()]

    def ended(self) -> list[Ended]:
        """All that have ended, the first to end first."""
        query = select(table.c.id, table.c.ended_at).where(table.c.state.in_(ENDED), table.c.ended_at.is_not(None))
        with self._engine.connect() as connection:
            rows = list(connection.execute(query.order_by(table.c.ended_at)).mappings())
        return self._unreadable.read("jobs", rows, lambda row: Ended(int(row["id"]), float(row["ended_at"])))

    def needed(self) -> set[int]:
        """The jobs that one which has not ended comes after or repeats. Raises `Unreadable` where a row cannot tell."""
        query = select(table.c.id, table.c.request, table.c.repeats).where(table.c.state.not_in(ENDED))
        with self._engine.connect() as connection:
            rows = list(connection.execute(query))
        needed: set[int] = set()
        for job, request, repeats in rows:
            try:
                needed |= {after.job for after in JobRequest.from_json(request).after}
            except READ_ERRORS as error:
                self._unreadable.note(f"jobs {job}", error)
                raise unreadable(f"jobs {job}", error) from None
            needed |= set() if repeats is None else {int(repeats)}
        return needed

    def queued(self, among: Collection[int] | None = None) -> list[RowMapping]:
        """What the scheduler needs of those that wait; `request` is left out, which is most of a row."""
        query = select(*(column for column in table.c if column.name not in _LARGE))
        query = query.where(table.c.state == JobState.queued)
        if among is not None:
            query = query.where(table.c.id.in_(among))
        with self._engine.connect() as connection:
            rows = list(connection.execute(query).mappings())
        return self._unreadable.read("jobs", rows, waiting_row)

    def touched(self) -> set[int]:
        """The jobs that came to the queue, or may have left it, since the last call."""
        with self._lock:
            found, self._touched = self._touched, set()
        return found

    def _touch(self, *jobs: int) -> None:
        with self._lock:
            self._touched.update(jobs)
        self.changed.set()

    def holding(self) -> list[Holding]:
        """Those whose tasks may run; the newest first."""
        columns = [table.c[name] for name in Holding.__dataclass_fields__]
        query = select(*columns).where(table.c.state.in_(HOLDING)).order_by(table.c.id.desc())
        with self._engine.connect() as connection:
            rows = list(connection.execute(query).mappings())
        return self._unreadable.read("jobs", rows, Holding.of)

    def states_of(self, ids: Collection[int]) -> dict[int, str]:
        with self._engine.connect() as connection:
            rows = connection.execute(select(table.c.id, table.c.state).where(table.c.id.in_(ids)))
            return {int(job): str(state) for job, state in rows}

    def after(self, jobs: Collection[int]) -> dict[int, tuple[After, ...]]:
        """What each of `jobs` comes after; one whose row cannot be read is not among them."""
        query = select(table.c.id, table.c.request).where(table.c.id.in_(jobs))
        with self._engine.connect() as connection:
            rows = list(connection.execute(query).mappings())
        read = self._unreadable.read("jobs", rows, lambda row: (int(row["id"]), JobRequest.from_json(row["request"])))
        return {job: request.after for job, request in read}

    def leases(self) -> list[tuple[Lease, float]]:
        """Every lease, and since when it is held."""
        with self._engine.connect() as connection:
            rows = list(connection.execute(select(lease_table)).mappings())
        return self._unreadable.read("leases", rows, lease_of, key="task")

    def usage(self, now: float) -> dict[str, float]:
        """What each user has used, as it counts now."""
        with self._engine.connect() as connection:
            rows = list(connection.execute(select(usage_table)).mappings())
        read = self._unreadable.read("usage", rows, lambda row: (row["owner"], used_at(row, now)), key="owner")
        return dict(read)

    def claim(self, job: int, leases: Sequence[Lease], ports: Sequence[int] = ()) -> bool:
        """Give a queued job its leases and ports, one for each of its tasks, and have it started as its next attempt;
        False, and nothing is given, when it is queued no more."""
        now = time.time()
        with self._engine.begin() as connection:
            values = {"state": JobState.starting, "attempt": table.c.attempt + 1, "started_at": None, "note": ""}
            values |= {"reason": "", "ended_at": None, "exit_status": None, "ports": list(ports)}
            if not _change(connection, job, (JobState.queued,), values, JobState.starting):
                return False
            connection.execute(insert(lease_table), [lease.to_json() | {"since": now} for lease in leases])
        return True

    def started(self, job: int, started_at: float) -> None:
        """Its tasks have been seen."""
        with self._engine.begin() as connection:
            values = {"state": JobState.running, "started_at": started_at}
            _change(connection, job, (JobState.starting,), values, JobState.running)

    def ask_to_stop(self, job: int, asked: str, *, actor: str) -> str:
        """Note that a job is to end; one that waits has ended with that. Its state now. Raises `Conflict` for one that
        has ended."""
        values: dict[str, Any] = {"state": JobState.stopped, "reason": EndReason.stopped, "asked": asked}
        values |= {"ended_at": time.time()}
        with self._engine.begin() as connection:
            if _change(connection, job, (JobState.queued,), values, JobState.stopped, actor=actor):
                self._touch(job)
                self._unreadable.forget(f"jobs {job}")
                return JobState.stopped
            if _change(connection, job, HOLDING, {"asked": asked}, "stopping", actor=actor):
                self.changed.set()
                return JobState.running
        ended = self.get(job)
        raise Conflict(_("Job {id} has ended already: {state}.").format(id=job, state=ended.state))

    def wind_up(self, job: int, why: str) -> bool:
        """Note that all tasks of a job are to end for a reason of our own; False where somebody has asked already."""
        unasked = (table.c.id == job) & (table.c.asked == "") & table.c.state.in_(HOLDING)
        with self._engine.begin() as connection:
            if not connection.execute(update(table).where(unasked).values(asked=why)).rowcount:
                return False
            detail = {"why": why}
            record(connection, actor="daemon", kind="job", subject=task_prefix(job), after="stopping", detail=detail)
        self.changed.set()
        return True

    def end(self, job: Job, end: End, capacity: Capacity) -> bool:
        """Write down how a job ended, charge what it used to its owner, and free its leases."""
        values: dict[str, Any] = {"state": end.state, "reason": end.reason, "note": end.note}
        values |= {"exit_status": end.exit_status}
        values |= {"ended_at": end.ended_at or time.time()}
        # A short one may never have been seen to run.
        values |= {"started_at": end.started_at or job.started_at}
        with self._engine.begin() as connection:
            if not _change(connection, job.id, LIVE, values, end.state, detail=vars(end)):
                return False
            self._free_all(connection, job, capacity)
        self._touch(job.id)
        return True

    def again(self, job: Job, end: End, capacity: Capacity, *, not_before: float, failures: int) -> None:
        """Queue a job for another attempt, after one that ended so."""
        values: dict[str, Any] = {"state": JobState.queued, "not_before": not_before, "failures": failures}
        values |= {"reason": end.reason, "note": end.note, "exit_status": end.exit_status, "asked": ""}
        with self._engine.begin() as connection:
            # Whoever asked for its end in the meantime is heard at the next look.
            asked = connection.execute(select(table.c.asked).where(table.c.id == job.id)).scalar()
            if asked == job.asked and _change(connection, job.id, HOLDING, values, JobState.queued, detail=vars(end)):
                self._free_all(connection, job, capacity)
        self._touch(job.id)

    def note_attempts(self, subject: str, after: str, detail: Mapping[str, Any]) -> None:
        """Record that starting, stopping or looking at a job fails, or does so no more."""
        with self._engine.begin() as connection:
            record(connection, actor="daemon", kind="trouble", subject=subject, after=after, detail=dict(detail))

    def keep_lease(self, lease: Lease, *, since: float) -> None:
        """A lease of what is no job: a workspace, an endpoint."""
        with self._engine.begin() as connection:
            connection.execute(delete(lease_table).where(lease_table.c.task == lease.task))
            connection.execute(insert(lease_table).values(**lease.to_json(), since=since))

    def free(self, task: str, capacity: Capacity) -> None:
        with self._engine.begin() as connection:
            self._free(connection, task, capacity)

    def _free_all(self, connection: Connection, job: Job, capacity: Capacity) -> None:
        for member in job.members:
            self._free(connection, member.task, capacity)

    def _free(self, connection: Connection, task: str, capacity: Capacity) -> None:
        row = connection.execute(select(lease_table).where(lease_table.c.task == task)).mappings().first()
        if row is None:
            return
        connection.execute(delete(lease_table).where(lease_table.c.task == task))
        # A clock that was set back in between charges nothing.
        now = time.time()
        known = connection.execute(select(usage_table).where(usage_table.c.owner == row["owner"])).mappings().first()
        try:
            lease, since = lease_of(row)
            used = charge(lease, capacity, max(0.0, now - since))
            before = used_at(known, now) if known is not None else 0.0
        except READ_ERRORS as error:
            # It is given back all the same; only what it has cost is not known.
            logger.warning("What %s has used is not charged: %s", task, error)
            self._unreadable.forget(f"leases {task}")
            return
        connection.execute(delete(usage_table).where(usage_table.c.owner == row["owner"]))
        connection.execute(insert(usage_table).values(owner=row["owner"], used=before + used, at=now))

    def note_snapshot(self, job: int, snapshot: Mapping[str, Any]) -> None:
        """What the job has run, where that is no more what was there when it was submitted."""
        with self._engine.begin() as connection:
            connection.execute(update(table).where(table.c.id == job).values(snapshot=dict(snapshot)))

    def codes(self) -> set[str]:
        """The snapshots' code that some job names. Raises `Unreadable` where a job's row cannot tell."""
        with self._engine.connect() as connection:
            rows = list(connection.execute(select(table.c.id, table.c.snapshot, table.c.request)))
        for job, kept, request in rows:
            if not isinstance(kept, dict) or not isinstance(request, dict):
                self._unreadable.note(f"jobs {job}", TypeError("snapshot or request"))
                raise unreadable(f"jobs {job}", "snapshot or request")
        return {code for _job, kept, request in rows for code in (kept.get("code"), request.get("code")) if code}

    def forget(self, before: float, keep: int) -> list[int]:
        """Remove jobs that ended before `before`, but for the newest `keep` of all; the ids of those that are gone."""
        with self._engine.begin() as connection:
            newest = select(table.c.id).order_by(table.c.id.desc()).limit(keep)
            old = table.c.state.in_(ENDED) & (table.c.ended_at < before) & table.c.id.not_in(newest)
            ids = [int(job) for job in connection.execute(select(table.c.id).where(old).limit(500)).scalars()]
            connection.execute(delete(table).where(table.c.id.in_(ids)))
            for job in ids:
                record(connection, actor="daemon", kind="job-row", subject=task_prefix(job), after="removed")
        return ids


def _row_of(request: JobRequest) -> dict[str, Any]:
    return {
        "name": request.name,
        "state": JobState.queued,
        "request": request.to_json(),
        "priority": request.priority,
        "cpus": request.cpus,
        "memory_bytes": request.memory_bytes,
        "gpus": request.gpus,
        "gpu_fraction": request.gpu_fraction,
        "workers": request.workers,
        "strategy": request.strategy,
        "waits": bool(request.after),
        "submitted_at": time.time(),
        "not_before": request.not_before,
    }


def _change(
    connection: Connection,
    job: int,
    states: Sequence[str],
    values: Mapping[str, Any],
    after: str,
    *,
    actor: str = "daemon",
    detail: Mapping[str, Any] | None = None,
) -> bool:
    """Change a job that is still in one of `states`, with its event; whether it was."""
    before = connection.execute(select(table.c.state).where(table.c.id == job)).scalar()
    same = (table.c.id == job) & (table.c.state == before)
    if before not in states or not connection.execute(update(table).where(same).values(**values)).rowcount:
        return False
    known = {name: value for name, value in (detail or {}).items() if value not in (None, "")}
    record(connection, actor=actor, kind="job", subject=task_prefix(job), before=before, after=after, detail=known)
    return True
