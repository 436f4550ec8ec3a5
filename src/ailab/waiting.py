"""The one way to wait: always with a timeout that says what it waited for."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import FrameType
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


class _Interrupted(KeyboardInterrupt):
    """How the main thread is reached in whatever it waits for: what handles failures must not swallow it."""


@contextmanager
def interrupted_by(look: Callable[[], AilabError | None], *, every: float = 0.5) -> Iterator[None]:
    """Within, the main thread and what it has started are interrupted as soon as `look`, which another thread calls
    every so many seconds, returns an error; that is raised, also in place of another one that came first because of it.
    Other threads than the main one are not interrupted."""
    over, changing, main = threading.Event(), threading.Lock(), threading.main_thread()
    seen: list[AilabError] = []

    def watch() -> None:
        while not over.wait(every):
            if (found := look()) is not None:
                with changing:
                    if not over.is_set():
                        seen.append(found)
                        signal.pthread_kill(main.ident or 0, signal.SIGUSR1)
                return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise _Interrupted

    here = threading.current_thread() is main
    before = signal.signal(signal.SIGUSR1, interrupt) if here else None
    try:
        try:
            if here:
                threading.Thread(target=watch, daemon=True).start()
            yield
        finally:
            with changing:
                over.set()
            if here:
                signal.signal(signal.SIGUSR1, before)
    except (_Interrupted, AilabError) as error:
        found = seen[0] if seen else look() if isinstance(error, AilabError) else None
        if found is None:
            raise
        raise found from error
