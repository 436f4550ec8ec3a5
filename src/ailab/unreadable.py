"""Stored rows and files that cannot be read: passed over, logged once, shown with a remedy, and never removed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from ailab.errors import AilabError, Conflict
from ailab.i18n import _

# What has not been met for so long is there no more. It is long: some rows are read once, when the daemon starts.
FORGET_SECONDS = 86400.0
# What reading a value of another kind, or with fields of another ailab, fails of. Wanting memory is no such failure.
READ_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AilabError)

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Unreadable(Conflict):
    """A stored row or file has a form that this ailab does not know."""

    kind = "unreadable"


def unreadable(what: str, reason: object) -> Unreadable:
    return Unreadable(_("{what} cannot be read: {reason}").format(what=what, reason=reason), remedy=remedy_of(what))


def remedy_of(what: str) -> str:
    """What to do about a row like `schedules 3`, or a file."""
    kind, _space, number = what.partition(" ")
    if kind == "schedules":
        return _("Use the ailab that wrote it, or remove it: ailab stop schedule-{id}").format(id=number)
    return _("It is kept as it is. Use the newer ailab that wrote it, or restore a backup of the lab.")


@dataclass
class Met:
    """Something that could not be read: the row as `table id`, why, and when first and last, in seconds since the
    epoch."""

    what: str
    reason: str
    since: float
    last: float
    is_recorded: bool = False

    def to_json(self) -> dict[str, Any]:
        since = datetime.fromtimestamp(self.since).astimezone().isoformat(timespec="seconds")
        return {"what": self.what, "reason": self.reason, "since": since, "remedy": remedy_of(self.what)}


class UnreadableRows:
    """What of a store could not be read lately. Callers may be on any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._met: dict[str, Met] = {}

    def read(self, table: str, rows: Iterable[Any], make: Callable[[Any], T], key: str = "id") -> list[T]:
        """What `make` makes of each row, without those of which it makes nothing."""
        made = []
        for row in rows:
            try:
                made.append(make(row))
            except READ_ERRORS as error:
                self.note(f"{table} {row[key]}", error)
        return made

    def note(self, what: str, error: BaseException) -> None:
        now, reason = time.time(), f"{type(error).__name__}: {error}".splitlines()[0][:200]
        with self._lock:
            known = self._met.get(what)
            if known is not None and known.reason == reason:
                known.last = now
                return
            self._met[what] = Met(what, reason, now, now)
        logger.error("%s cannot be read and is passed over: %s", what, reason)

    def forget(self, what: str) -> None:
        """It is there no more."""
        with self._lock:
            self._met.pop(what, None)

    def met(self) -> list[Met]:
        oldest = time.time() - FORGET_SECONDS
        with self._lock:
            self._met = {what: met for what, met in self._met.items() if met.last >= oldest}
            return list(self._met.values())

    def record_new(self, record: Callable[[str, dict[str, Any]], None]) -> None:
        """Have an event recorded of each that has none yet. Raises what `record` does."""
        for met in self.met():
            if not met.is_recorded:
                record(met.what, {"reason": met.reason, "remedy": remedy_of(met.what)})
                met.is_recorded = True
