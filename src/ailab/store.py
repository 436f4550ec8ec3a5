"""The lab's one database: SQLite in WAL mode, its tables, and its migrations from the first day."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Dialect,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    create_engine,
    event,
    inspect,
    text,
)

from ailab import store_file
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.unreadable import UnreadableRows

NEWEST = "0004"
metadata = MetaData()


class StoredJson(TypeDecorator[Any]):
    """JSON that is read leniently: of a value that is none its text, so that one row does not end a whole query."""

    impl = JSON
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        decode = super().result_processor(dialect, coltype)

        def lenient(value: Any) -> Any:
            try:
                return decode(value) if decode is not None else value
            except (ValueError, TypeError, RecursionError):
                return str(value)

        return lenient


# Who changed what, from which state to which, when: the audit log. Times are ISO 8601 in UTC.
events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", String, nullable=False, index=True),
    Column("actor", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("before", String),
    Column("after", String),
    Column("detail", StoredJson, nullable=False),
)

# The tasks that should exist. `spec` is runtimes.TaskSpec; `not_before` is seconds since the epoch.
tasks = Table(
    "tasks",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("wanted", Boolean, nullable=False),
    Column("spec", StoredJson, nullable=False),
    Column("failures", Integer, nullable=False, default=0),
    Column("not_before", Float, nullable=False, default=0.0),
    Column("seen", String, nullable=False, default="absent"),
)

# `link_until`: who came in by a login link may choose a password until then without naming the old one.
users = Table(
    "users",
    metadata,
    Column("name", String, primary_key=True),
    Column("password_hash", String, nullable=False),
    Column("admin", Boolean, nullable=False),
    Column("must_change", Boolean, nullable=False),
    Column("spent", Boolean, nullable=False, default=False),
    Column("failures", Integer, nullable=False, default=0),
    Column("locked_until", Float, nullable=False, default=0.0),
    Column("created_at", String, nullable=False),
    Column("link_until", Float, nullable=False, default=0.0),
)

# One-time login links: only a digest of the code is kept.
login_codes = Table(
    "login_codes",
    metadata,
    Column("digest", String, primary_key=True),
    Column("user", String, nullable=False),
    Column("expires", Float, nullable=False),
)

# Jobs; see `jobs.model`. Times are seconds since the epoch. What the scheduler looks at has columns of its own, beside
# `request`, for thousands may wait. `attempt` counts the starts, `failures` those that were retried. `asked` is who or
# what wants the job stopped. `ports` are those at which its tasks reach each other in this attempt. `array` is the
# first job of those that were submitted as one, `part` the number within it.
jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("request", StoredJson, nullable=False),
    Column("snapshot", StoredJson, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("cpus", Integer, nullable=False),
    Column("memory_bytes", Integer, nullable=False),
    Column("gpus", Integer, nullable=False),
    Column("gpu_fraction", Float, nullable=False),
    Column("workers", Integer, nullable=False, default=1),
    Column("strategy", String, nullable=False, default=""),
    Column("waits", Boolean, nullable=False),
    Column("submitted_at", Float, nullable=False),
    Column("not_before", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("exit_status", Integer),
    Column("reason", String, nullable=False, default=""),
    Column("note", String, nullable=False, default=""),
    Column("attempt", Integer, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),
    Column("asked", String, nullable=False, default=""),
    Column("ports", StoredJson, nullable=False, default=[]),
    Column("repeats", Integer),
    Column("array", Integer),
    Column("part", Integer),
    sqlite_autoincrement=True,
)

# Who holds what of the machine: one row for each task that holds something. `gpus` are pairs of an id and a share.
leases = Table(
    "leases",
    metadata,
    Column("task", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("cpus", Integer, nullable=False),
    Column("memory_bytes", Integer, nullable=False),
    Column("gpus", StoredJson, nullable=False),
    Column("since", Float, nullable=False),
)

# What each user has used of the machine, in seconds of all of it, as it counted at `at`; see `jobs.scheduling`.
usage = Table(
    "usage",
    metadata,
    Column("owner", String, primary_key=True),
    Column("used", Float, nullable=False),
    Column("at", Float, nullable=False),
)

# Requests that are submitted again and again: `every` seconds, next at `due`.
schedules = Table(
    "schedules",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("owner", String, nullable=False),
    Column("request", StoredJson, nullable=False),
    Column("every", Float, nullable=False),
    Column("due", Float, nullable=False),
    Column("last_job", Integer),
    sqlite_autoincrement=True,
)


class Store:
    """The database of one lab. Only the daemon opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.engine: Engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 10})
        event.listen(self.engine, "connect", _configure)
        self.unreadable = UnreadableRows()

    def open(self) -> Store:
        """Make the file (only ours to read) or bring an older one up to date. Returns itself. Raises `DamagedStore`."""
        store_file.check(self.path)
        if not self.path.exists():
            self._make_file()
        with self.engine.connect() as connection:
            revision = _revision(connection)
        if revision is None:
            self._make()
        elif revision != NEWEST:
            self._migrate(revision)
        return self

    def _make_file(self) -> None:
        """A new database comes about beside its place, and whole: one without content is never ours."""
        unfinished = self.path.with_name(f"{self.path.name}.new")
        for left in self.path.parent.glob(f"{unfinished.name}*"):
            left.unlink()
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        made = Store(unfinished)
        made._make()
        with made.engine.connect() as connection:
            connection.execute(text("PRAGMA journal_mode=DELETE"))
        made.engine.dispose()
        unfinished.replace(self.path)

    def _make(self) -> None:
        """All tables as they are today: alembic, which a lab's first start need not wait for, would make the same. Its
        revision is written last, so one that is cut off is made good by the next."""
        metadata.create_all(self.engine)
        with self.engine.begin() as connection:
            connection.execute(
                text("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
            )
            connection.execute(text("INSERT INTO alembic_version VALUES (:newest)"), {"newest": NEWEST})

    def _migrate(self, revision: str) -> None:
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        try:
            with self.engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except CommandError as error:
            raise AilabError(
                _("{path} was written by a newer ailab (revision {revision}).").format(
                    path=self.path, revision=revision
                ),
                remedy=_("Use that newer ailab, or restore a backup of the lab."),
            ) from error


def _configure(connection: object, _record: object) -> None:
    # A byte that is no UTF-8 spoils its own value, not the query.
    connection.text_factory = lambda data: data.decode("utf-8", errors="replace")  # type: ignore[attr-defined]
    cursor = connection.cursor()  # type: ignore[attr-defined]  # a DBAPI connection has no type
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
