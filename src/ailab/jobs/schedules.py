"""Jobs that come again and again: what was wished, how often, when next."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict
from sqlalchemy import RowMapping, delete, func, insert, select, update

from ailab.attempts import do_all
from ailab.errors import NotFound
from ailab.events import record
from ailab.i18n import _
from ailab.jobs.model import ENDED, JobState
from ailab.jobs.queue import Jobs
from ailab.jobs.wish import JobWish
from ailab.store import Store
from ailab.store import schedules as table


class StoredWish(JobWish):
    """A wish as it is read back: a key that an older or newer ailab wrote is passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)


@dataclass(frozen=True)
class Schedule:
    """A row of the table. Times are seconds since the epoch."""

    id: int
    owner: str
    wish: JobWish
    every: float
    due: float
    last_job: int | None

    @classmethod
    def of(cls, row: RowMapping) -> Schedule:
        """Raises one of `READ_ERRORS` for a row of a form that this ailab does not know."""
        wish = StoredWish.model_validate(row["request"])
        last = None if row["last_job"] is None else int(row["last_job"])
        return cls(row["id"], str(row["owner"]), wish, max(1.0, float(row["every"])), float(row["due"]), last)


def add(store: Store, wish: JobWish, *, owner: str, cpus: int) -> int:
    """Note a wish to be submitted every `wish.every` seconds, first at `wish.at`, or at once. Its number."""
    # As it is now for good: "every" is ours from here on, and "at" has a meaning only the first time.
    kept = wish.model_copy(update={"every": 0.0, "at": 0.0, "cpus": wish.cpus or cpus}).model_dump(mode="json")
    kept["after"] = [f"{one.job}:{one.on}" for one in wish.after]
    kept["array"] = "-".join(map(str, wish.array)) if wish.array else None
    with store.engine.begin() as connection:
        values = {"owner": owner, "request": kept, "every": max(1.0, wish.every), "due": wish.at or time.time()}
        made = connection.execute(insert(table).values(**values)).inserted_primary_key
        assert made is not None, "SQLite numbers the rows"
        record(connection, actor=owner, kind="schedule", subject=f"schedule-{made[0]}", after="wanted")
    return int(made[0])


def all_of(store: Store) -> list[dict[str, Any]]:
    """What is to be submitted, by number; variables by name alone."""
    with store.engine.connect() as connection:
        rows = list(connection.execute(select(table).order_by(table.c.id)).mappings())
    return [
        {
            "id": one.id,
            "owner": one.owner,
            "command": one.wish.command,
            "name": one.wish.title(),
            "every": one.every,
            "due": one.due,
            "last_job": one.last_job,
        }
        for one in store.unreadable.read("schedules", rows, Schedule.of)
    ]


def remove(store: Store, schedule: int) -> None:
    with store.engine.begin() as connection:
        if not connection.execute(delete(table).where(table.c.id == schedule)).rowcount:
            raise NotFound(
                _("There is no schedule {id}.").format(id=schedule),
                remedy=_("See those there are: ailab jobs --schedules"),
            )
        record(connection, actor="daemon", kind="schedule", subject=f"schedule-{schedule}", after="removed")
    store.unreadable.forget(f"schedules {schedule}")


def submit_due(store: Store, jobs: Jobs) -> None:
    """Submit what is due. One whose last job still waits or runs is left out this time; and times that have passed
    while the lab was down are made up for by one. One that cannot be read, or submitted, keeps none of the others.
    Raises what the first of them failed of."""
    now = time.time()
    # A `due` that is no number sorts behind all numbers: it is read to be reported.
    is_due = (table.c.due <= now) | (func.typeof(table.c.due).not_in(("real", "integer")))
    with store.engine.connect() as connection:
        rows = list(connection.execute(select(table).where(is_due)).mappings())
    due = store.unreadable.read("schedules", rows, Schedule.of)
    do_all(due, lambda one: _submit(store, jobs, one, now))


def _submit(store: Store, jobs: Jobs, one: Schedule, now: float) -> None:
    due = one.due + one.every * (1 + (now - one.due) // one.every)
    last = one.last_job
    # One whose state this ailab does not know has not ended.
    still = last is not None and jobs.states_of([last]).get(last, JobState.done) not in ENDED
    # First the next time, then the job: a kill in between leaves one out, and never makes two.
    with store.engine.begin() as connection:
        connection.execute(update(table).where(table.c.id == one.id).values(due=due))
        if still:
            subject, detail = f"schedule-{one.id}", {"reason": f"job-{last}"}
            record(connection, actor="daemon", kind="schedule", subject=subject, after="left out", detail=detail)
    if still:
        return
    ids = jobs.submit(one.wish.requests(cpus=one.wish.cpus), owner=one.owner, actor="schedule")
    with store.engine.begin() as connection:
        connection.execute(update(table).where(table.c.id == one.id).values(last_job=ids[0]))
