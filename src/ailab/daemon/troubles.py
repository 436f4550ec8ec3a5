"""What a loop of the daemon fails of: into the daemon's log each time, an event once as long as it is the same."""

from __future__ import annotations

import traceback

from ailab.events import record
from ailab.store import Store


class Troubles:
    """Of the loop called `subject`. A full disk would fail every second: that is one event, until `over`."""

    def __init__(self, store: Store, subject: str) -> None:
        self._store = store
        self._subject = subject
        self._last = ""

    def note(self, error: Exception) -> None:
        """To be called where the error is handled. Raises what the store does."""
        traceback.print_exception(error)
        text = f"{type(error).__name__}: {error}"[:500]
        if text == self._last:
            return
        self._last = text
        with self._store.engine.begin() as connection:
            record(
                connection, actor="daemon", kind="loop", subject=self._subject, after="failed", detail={"error": text}
            )

    def over(self) -> None:
        """A step has gone well."""
        self._last = ""
