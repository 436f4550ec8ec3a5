"""Work that is tried again until it succeeds: each failure is logged, counted, recorded when it changes, and shown."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar

from ailab.command import redact
from ailab.errors import AilabError, NotRunning

FIRST_PAUSE = 0.5
# What had failed goes on this soon after its cause has gone.
LONGEST_PAUSE = 5.0
# The same fault is logged again, with a count, and recorded again after this long.
REMIND_SECONDS = 3600.0

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Records "failed" or "recovered", with a detail.
Record = Callable[[str, dict[str, Any]], None]


def fault_text(error: BaseException) -> str:
    """The cause in one line that is equal for equal faults: without the statement and values of a failed query."""
    if isinstance(error, AilabError):
        return redact(f"{error.message} {error.remedy}".strip())
    cause = getattr(error, "orig", None) or error
    text = (str(cause).strip().splitlines() or [""])[0]
    return redact(f"{type(cause).__name__}: {text}"[:500])


def do_all(things: Iterable[T], work: Callable[[T], object]) -> None:
    """Do the work for each, whatever it fails of for others. Raises the first failure at the end; `NotRunning`, which
    the others would meet as well, at once."""
    failure: Exception | None = None
    for thing in things:
        try:
            work(thing)
        except NotRunning:
            raise
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure


class Attempts:
    """How one piece of work fares: the failures in a row, and when to try again. Nothing here raises, whatever is
    broken: the log comes first, the event is best effort and is tried again with the next failure."""

    def __init__(
        self,
        what: str,
        record: Record | None = None,
        *,
        longest: float = LONGEST_PAUSE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what = what
        self._record = record
        self._longest = longest
        self._clock = clock
        self.failures = 0
        self.error = ""
        self.since = 0.0  # seconds since the epoch
        self.not_before = 0.0  # on `clock`
        self._logged_at = 0.0
        self._recorded: dict[str, float] = {}
        self._is_recorded = False

    def failed(self, error: BaseException) -> None:
        self.failures += 1
        self.not_before = self._clock() + min(self._longest, FIRST_PAUSE * 2 ** min(self.failures - 1, 16))
        with suppress(BaseException):
            self._note(error)

    def _note(self, error: BaseException) -> None:
        text, now = fault_text(error), self._clock()
        if self.failures == 1:
            self.since, self._is_recorded = time.time(), False
        if text != self.error:
            self.error, self._logged_at = text, now
            logger.error("%s failed: %s", self.what, text, exc_info=None if isinstance(error, AilabError) else error)
        elif now - self._logged_at >= REMIND_SECONDS:
            self._logged_at = now
            logger.error("%s still fails: %s (%s)", self.what, text, self._count())
        told = self._recorded.get(text)
        if self._record is not None and (told is None or now - told >= REMIND_SECONDS):
            self._record("failed", {"error": text})
            # The latest few are enough: who alternates between more has other worries.
            self._recorded = {**dict(list(self._recorded.items())[-9:]), text: now}
            self._is_recorded = True

    def succeeded(self) -> None:
        if not self.failures:
            return
        with suppress(BaseException):
            logger.info("%s works again (%s): %s", self.what, self._count(), self.error)
        with suppress(BaseException):
            # Record a fault that could not be recorded while it lasted, as on a full disk.
            if self._record is not None and (self._is_recorded or self.error not in self._recorded):
                self._record("recovered", {"error": self.error, "failures": self.failures, "since": self._clock_time()})
                self._recorded[self.error] = self._clock()
        self.failures, self.error, self.not_before = 0, "", 0.0

    def may_begin(self) -> bool:
        return self._clock() >= self.not_before

    def to_json(self) -> dict[str, Any]:
        return {"what": self.what, "error": self.error, "failures": self.failures, "since": self._clock_time()}

    def _count(self) -> str:
        return f"failed {self.failures} times since {datetime.fromtimestamp(self.since):%m-%d %H:%M:%S}"

    def _clock_time(self) -> str:
        return datetime.fromtimestamp(self.since).astimezone().isoformat(timespec="seconds")


class KeyedPool:
    """Runs work in threads beside a loop, one piece at a time for each key. Work that failed is begun again no sooner
    than its pause has passed; the loop that asks for it asks again."""

    def __init__(self, name: str, threads: int, record: Callable[[str, str, dict[str, Any]], None]) -> None:
        self._name = name
        self._record = record
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._busy: dict[Hashable, object] = {}
        self._attempts: dict[Hashable, Attempts] = {}

    def begin(self, key: Hashable, work: Callable[[], object]) -> bool:
        """Have the work done, unless work for the key is under way or its pause has not passed."""
        mark = self._enter(key)
        if mark is None:
            return False
        try:
            self._pool.submit(self._work, key, mark, work)
        except BaseException as error:
            # As when no thread can be started. The executor has queued it: without the mark it does nothing.
            self._failed(key, error)
            self._leave(key, mark)
            return False
        return True

    def here(self, key: Hashable, work: Callable[[], object]) -> BaseException | None:
        """Do the work in this thread, and at once, whenever it failed. What it failed of, if it did."""
        mark = self._enter(key, in_pause=True)
        return None if mark is None else self._work(key, mark, work)

    def each(self, keys: Iterable[str], work: Callable[[str], object]) -> None:
        """Do the work for each of the keys beside the others, whoever else works for them; returns when it has been
        tried for all. What fails is logged."""

        def tried(key: str) -> None:
            try:
                work(key)
            except Exception as error:
                logger.error(
                    "%s: %s", key, fault_text(error), exc_info=None if isinstance(error, AilabError) else error
                )

        pending = []
        for key in keys:
            try:
                pending.append(self._pool.submit(tried, key))
            except RuntimeError:
                # No thread can be started.
                tried(key)
        for one in pending:
            one.result()

    @contextmanager
    def alone(self, key: Hashable) -> Iterator[bool]:
        """Within, nobody else works for the key; False where somebody does. Failures are the caller's."""
        mark = self._enter(key, in_pause=True)
        try:
            yield mark is not None
        finally:
            if mark is not None:
                self._leave(key, mark)

    def is_busy(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._busy

    def error(self, key: Hashable) -> str:
        """Of what the work for a key fails now; empty where it does not."""
        attempts = self._attempts.get(key)
        return attempts.error if attempts is not None else ""

    def settled(self, key: Hashable) -> None:
        """Record that the work for the key is no longer needed: somebody else has done it."""
        attempts = self._attempts.get(key)
        if attempts is not None and not self.is_busy(key):
            attempts.succeeded()

    def forget(self, key: Hashable) -> None:
        """There is nothing more to do for the key; what failed is over."""
        attempts = self._attempts.pop(key, None)
        if attempts is not None:
            attempts.succeeded()

    def forget_others(self, keys: Collection[Hashable]) -> None:
        """Forget what is none of the keys, and that nobody works for."""
        for key in list(self._attempts):
            if key not in keys and not self.is_busy(key):
                self.forget(key)

    def faults(self) -> list[dict[str, Any]]:
        return [attempts.to_json() for attempts in list(self._attempts.values()) if attempts.failures]

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _enter(self, key: Hashable, *, in_pause: bool = False) -> object | None:
        attempts = self._attempts.get(key)
        if not in_pause and attempts is not None and not attempts.may_begin():
            return None
        with self._lock:
            if key in self._busy:
                return None
            mark = self._busy[key] = object()
        return mark

    def _leave(self, key: Hashable, mark: object) -> None:
        with self._lock:
            if self._busy.get(key) is mark:
                del self._busy[key]

    def _work(self, key: Hashable, mark: object, work: Callable[[], object]) -> BaseException | None:
        if self._busy.get(key) is not mark:
            return None
        try:
            work()
        except BaseException as error:
            self._failed(key, error)
            return error
        else:
            if (attempts := self._attempts.get(key)) is not None:
                attempts.succeeded()
            return None
        finally:
            self._leave(key, mark)

    def _failed(self, key: Hashable, error: BaseException) -> None:
        with suppress(BaseException):
            if key not in self._attempts:
                subject = f"{self._name}-{key}" if isinstance(key, int) else str(key)
                self._attempts[key] = Attempts(subject, lambda after, detail: self._record(subject, after, detail))
            self._attempts[key].failed(error)
