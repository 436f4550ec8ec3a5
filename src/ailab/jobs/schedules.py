"""Jobs that come again and again: what was wished, how often, when next."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import delete, insert, select, update

from ailab.errors import NotFound
from ailab.events import record
from ailab.i18n import _
from ailab.jobs.model import LIVE
from ailab.jobs.queue import Jobs
from ailab.jobs.wish import JobWish
from ailab.store import Store
from ailab.store import schedules as table


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
            "id": row["id"],
            "owner": row["owner"],
            "command": row["request"]["command"],
            "name": JobWish.model_validate(row["request"]).title(),
            "every": row["every"],
            "due": row["due"],
            "last_job": row["last_job"],
        }
        for row in rows
    ]


def remove(store: Store, schedule: int) -> None:
    with store.engine.begin() as connection:
        if not connection.execute(delete(table).where(table.c.id == schedule)).rowcount:
            raise NotFound(
                _("There is no schedule {id}.").format(id=schedule),
                remedy=_("See those there are: ailab jobs --schedules"),
            )
        record(connection, actor="daemon", kind="schedule", subject=f"schedule-{schedule}", after="removed")


def submit_due(store: Store, jobs: Jobs) -> None:
    """Submit what is due. One whose last job still waits or runs is left out this time; and times that have passed
    while the lab was down are made up for by one."""
    now = time.time()
    with store.engine.connect() as connection:
        rows = list(connection.execute(select(table).where(table.c.due <= now)).mappings())
    for row in rows:
        wish = JobWish.model_validate(row["request"])
        due = row["due"] + row["every"] * (1 + (now - row["due"]) // row["every"])
        last = row["last_job"]
        still = last is not None and jobs.states_of([last]).get(last, "") in LIVE
        # First the next time, then the job: a kill in between leaves one out, and never makes two.
        with store.engine.begin() as connection:
            connection.execute(update(table).where(table.c.id == row["id"]).values(due=due))
            if still:
                detail = {"reason": f"job-{last}"}
                record(
                    connection,
                    actor="daemon",
                    kind="schedule",
                    subject=f"schedule-{row['id']}",
                    after="left out",
                    detail=detail,
                )
        if still:
            continue
        ids = jobs.submit(wish.requests(cpus=wish.cpus), owner=row["owner"], actor="schedule")
        with store.engine.begin() as connection:
            connection.execute(update(table).where(table.c.id == row["id"]).values(last_job=ids[0]))
