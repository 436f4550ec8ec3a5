"""The audit log: who changed what, from which state to which, when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ailab.store import Store


def now() -> str:
    """This moment as ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def record(
    connection: Connection,
    *,
    actor: str,
    kind: str,
    subject: str,
    before: str | None = None,
    after: str | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Write one event in the transaction of the change that it tells of. `detail` must hold no secret."""
    from sqlalchemy import insert

    from ailab.store import events as table

    values = {"at": now(), "actor": actor, "kind": kind, "subject": subject, "before": before, "after": after}
    connection.execute(insert(table).values(**values, detail=detail or {}))


def details_of(connection: Connection, subject: str, name: str, **same: Any) -> set[str]:
    """What the events of `subject` have under `name` in their detail, of those in which all of `same` is as given."""
    from sqlalchemy import select

    from ailab.store import events as table

    details = connection.execute(select(table.c.detail).where(table.c.subject == subject)).scalars()
    readable = (one for one in details if isinstance(one, dict))
    return {str(one[name]) for one in readable if name in one and same.items() <= one.items()}


def remove(store: Store, *, before: float, keep: int, most: int) -> int:
    """Remove events that happened before `before` (seconds since the epoch) or come before the newest `keep`: at most
    `most` of them, the oldest first. How many were removed."""
    from sqlalchemy import delete, func, select

    from ailab.store import events as table

    oldest = datetime.fromtimestamp(before, UTC).isoformat(timespec="milliseconds")
    with store.engine.begin() as connection:
        last = connection.execute(select(func.max(table.c.id))).scalar() or 0
        old = (table.c.at < oldest) | (table.c.id <= last - keep)
        ids = select(table.c.id).where(old).order_by(table.c.id).limit(most)
        return connection.execute(delete(table).where(table.c.id.in_(ids))).rowcount


def last_of(store: Store, kind: str, subject: str) -> dict[str, Any] | None:
    """The last event of that kind and subject."""
    from sqlalchemy import select

    from ailab.store import events as table

    same = (table.c.kind == kind) & (table.c.subject == subject)
    with store.engine.connect() as connection:
        row = connection.execute(select(table).where(same).order_by(table.c.id.desc()).limit(1)).mappings().first()
        return None if row is None else dict(row)


def newest(store: Store, limit: int) -> list[dict[str, Any]]:
    """The last `limit` events, newest first."""
    from sqlalchemy import select

    from ailab.store import events as table

    with store.engine.connect() as connection:
        rows = connection.execute(select(table).order_by(table.c.id.desc()).limit(limit)).mappings()
        return [dict(row) | {"detail": row["detail"] if isinstance(row["detail"], dict) else {}} for row in rows]
