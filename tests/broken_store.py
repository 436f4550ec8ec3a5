"""A real store whose writes fail for a while, as on a full disk."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import event

from ailab.store import Store


class BrokenStore(Store):
    """Raises `failure` at each statement that writes, as long as there is one; and at each that reads with `reads`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.failure: BaseException | None = None
        self.reads = False
        event.listen(self.engine, "before_cursor_execute", self._fail)

    def _fail(self, _connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if self.failure is not None and (self.reads or not statement.lstrip().upper().startswith(("SELECT", "PRAGMA"))):
            raise self.failure


def full() -> BaseException:
    return sqlite3.OperationalError("database or disk is full")
