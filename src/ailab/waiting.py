"""The one way to wait: always with a timeout that says what it waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from ailab.errors import AilabError
from ailab.i18n import _

T = TypeVar("T")


class TimedOut(AilabError):
    """What was waited for did not happen in time."""

    http_status = 504
    kind = "timeout"


def _intervals(first: float, last: float) -> Iterator[float]:
    interval = first
    while True:
        yield interval
        interval = min(interval * 1.5, last)


def timed_out(what: str, timeout: float) -> TimedOut:
    """The error of a wait for `what` that took longer than `timeout` seconds."""
    return TimedOut(_("Waited {seconds:g} s for {what}; it did not happen.").format(seconds=timeout, what=what))


def wait_for(probe: Callable[[], T | None], *, timeout: float, what: str, first: float = 0.02, last: float = 0.25) -> T:
    """Call `probe` until it returns something true, and return that.

    `timeout`, `first` and `last` (the shortest and longest pause) are seconds. Raises `TimedOut`; what `probe` raises
    passes through.
    """
    deadline = time.monotonic() + timeout
    for interval in _intervals(first, last):
        result = probe()
        if result:
            return result
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise timed_out(what, timeout)
        time.sleep(min(interval, remaining))
    raise AssertionError("unreachable")


async def wait_for_async(
    probe: Callable[[], Awaitable[T | None]], *, timeout: float, what: str, first: float = 0.02, last: float = 0.25
) -> T:
    """`wait_for` for a coroutine: the same timeout, the same error."""
    # Here, for most who wait do not import it.
    import asyncio

    deadline = time.monotonic() + timeout
    for interval in _intervals(first, last):
        result = await probe()
        if result:
            return result
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise timed_out(what, timeout)
        await asyncio.sleep(min(interval, remaining))
    raise AssertionError("unreachable")


def begin(work: Callable[[], T]) -> Future[T]:
    """Start `work` in a thread that nobody has to wait for: not even the process's end does."""
    ending: Future[T] = Future()

    def run() -> None:
        try:
            ending.set_result(work())
        except BaseException as error:
            ending.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return ending


def within(timeout: float, work: Callable[[], T], what: str) -> T:
    """What `work` returns or raises, or `TimedOut` after `timeout` seconds: for calls that know no timeout of their
    own, as a name's resolution. What takes longer is left to itself."""
    ending = begin(work)
    try:
        return ending.result(timeout)
    except TimeoutError:
        if ending.done():
            raise
        raise timed_out(what, timeout) from None
