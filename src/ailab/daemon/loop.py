"""The one construction of the daemon's loops: each survives every failure, and says how it is doing."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from typing import Any

from ailab.attempts import FIRST_PAUSE, LONGEST_PAUSE, Attempts
from ailab.events import record
from ailab.store import Store

# A step that takes longer is reported as stuck; most take milliseconds.
STUCK_SECONDS = 120.0
LONGEST_WAIT = 60.0
# What is due so soon is done at once: an idle lab is to wake once a second, not once for each concern.
SLACK_SECONDS = 0.1

logger = logging.getLogger(__name__)

# The name of the loop, "failed" or "recovered" or "restarted", and a detail.
RecordLoop = Callable[[str, str, dict[str, Any]], None]


class LoopState(StrEnum):
    """`failing`: a concern failed the last time and is tried again. `stuck`: a step has not ended for too long.
    `dead`: the thread has ended."""

    running = "running"
    failing = "failing"
    stuck = "stuck"
    dead = "dead"


def recorder(store: Store) -> RecordLoop:
    """Records what happens to a loop as an event. Raises what the store does."""

    def write(subject: str, after: str, detail: dict[str, Any]) -> None:
        with store.engine.begin() as connection:
            record(connection, actor="daemon", kind="loop", subject=subject, after=after, detail=detail)

    return write


def recorder_of_unreadable(store: Store) -> Callable[[], None]:
    """Records an event of each row that could not be read and has none yet."""

    def write(what: str, detail: dict[str, Any]) -> None:
        with store.engine.begin() as connection:
            record(connection, actor="daemon", kind="store", subject=what, after="unreadable", detail=detail)

    return lambda: store.unreadable.record_new(write)


class Concern:
    """One thing that a loop looks after, independent of the loop's others.

    `step` is called every `every` seconds, or after the seconds that it returned; with `on_wake` also when the loop is
    woken. After a failure it is called again within `longest` seconds.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float | None],
        *,
        every: float = 1.0,
        first: float = 0.0,
        on_wake: bool = False,
        longest: float = LONGEST_PAUSE,
    ) -> None:
        self.name = name
        self._step = step
        self._every = every
        self._on_wake = on_wake
        self._longest = longest
        self.next_at = time.monotonic() + first
        self.attempts = Attempts(name, longest=longest)

    def watched_by(self, loop: str, record_loop: RecordLoop) -> None:
        def write(after: str, detail: dict[str, Any]) -> None:
            record_loop(loop, after, {"concern": self.name, **detail})

        self.attempts = Attempts(f"{loop}/{self.name}", write, longest=self._longest)

    def is_due(self, now: float, *, woken: bool) -> bool:
        return now >= self.next_at - SLACK_SECONDS or (woken and self._on_wake and not self.attempts.failures)

    def take(self) -> None:
        """Do one step. Raises nothing."""
        try:
            pause = self._step()
        except BaseException as error:
            self.attempts.failed(error)
            self.next_at = self.attempts.not_before
        else:
            self.attempts.succeeded()
            self.next_at = time.monotonic() + (self._every if pause is None else pause)


class Loop:
    """A thread that takes the steps of its concerns until `leaving` is set.

    `wake` is an event that has it take those `on_wake` at once. It rests `rest` times as long as it has worked, at most
    a second, before it can be woken. `stuck_after` is in seconds.
    """

    def __init__(
        self,
        name: str,
        concerns: Sequence[Concern],
        leaving: threading.Event,
        record_loop: RecordLoop,
        *,
        wake: threading.Event | None = None,
        rest: float = 0.0,
        stuck_after: float = STUCK_SECONDS,
    ) -> None:
        self.name = name
        self._concerns = tuple(concerns)
        self._leaving = leaving
        self._record = record_loop
        self._wake = wake
        self._rest = rest
        self._stuck_after = stuck_after
        self._thread: threading.Thread | None = None
        # The concern whose step is being taken, and since when; when the last step ended, in seconds since the epoch.
        self._busy: tuple[str, float] | None = None
        self._finished_at = 0.0
        self._stuck = Attempts(f"loop {name}", self._record_stuck)
        for concern in concerns:
            concern.watched_by(name, record_loop)

    def start(self) -> None:
        """Start the thread, or another one after it has ended. Raises `RuntimeError` where the system refuses."""
        thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        thread.start()
        self._thread = thread

    def join(self, timeout: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout)

    def turn(self, *, woken: bool = False) -> None:
        """Take the steps that are due."""
        for concern in self._concerns:
            if self._leaving.is_set():
                return
            if concern.is_due(time.monotonic(), woken=woken):
                self._busy = (concern.name, time.monotonic())
                concern.take()
                self._busy, self._finished_at = None, time.time()

    def _run(self) -> None:
        woken = False
        while not self._leaving.is_set():
            try:
                if self._wake is not None:
                    self._wake.clear()
                began = time.monotonic()
                self.turn(woken=woken)
                woken = self._pause(began)
            except BaseException:
                # Not even the steps' own error handling could be done, as without memory. There is always another turn.
                with suppress(BaseException):
                    logger.exception("loop %s: a turn failed", self.name)
                with suppress(BaseException):
                    self._leaving.wait(FIRST_PAUSE)

    def _pause(self, began: float) -> bool:
        """Wait until a step is due; whether somebody has woken the loop."""
        if self._rest:
            self._leaving.wait(min(self._rest * (time.monotonic() - began), 1.0))
        due = min((concern.next_at for concern in self._concerns), default=began + LONGEST_WAIT)
        pause = min(max(0.0, due - time.monotonic()), LONGEST_WAIT)
        return (self._wake or self._leaving).wait(pause)

    @property
    def state(self) -> LoopState:
        if self._thread is None or not self._thread.is_alive():
            return LoopState.dead
        if self._stuck_seconds() > 0:
            return LoopState.stuck
        failing = any(concern.attempts.failures for concern in self._concerns)
        return LoopState.failing if failing else LoopState.running

    def _stuck_seconds(self) -> float:
        """For how long the step under way has taken too long."""
        busy = self._busy
        return 0.0 if busy is None else max(0.0, time.monotonic() - busy[1] - self._stuck_after)

    def look(self) -> None:
        """What the watchdog does: report a stuck step, start a thread again that has ended."""
        state = self.state
        if state == LoopState.stuck:
            if self._stuck.may_begin():
                self._stuck.failed(RuntimeError(f"{(self._busy or ('?',))[0]} has not ended for too long"))
                if self._stuck.failures == 1:
                    logger.error("loop %s is at:\n%s", self.name, self._stack())
        elif state == LoopState.dead:
            logger.error("loop %s has ended; starting it again", self.name)
            self.start()
            self._record(self.name, "restarted", {})
        else:
            self._stuck.succeeded()

    def _record_stuck(self, after: str, detail: dict[str, Any]) -> None:
        self._record(self.name, "stuck" if after == "failed" else after, detail)

    def _stack(self) -> str:
        ident = self._thread.ident if self._thread is not None else None
        frame = sys._current_frames().get(ident or 0)
        return "".join(traceback.format_stack(frame)) if frame is not None else "?"

    def to_json(self) -> dict[str, Any]:
        """Its name and state, when its last step ended, and what fails."""
        faults = [concern.attempts.to_json() for concern in self._concerns if concern.attempts.failures]
        state, busy = self.state, self._busy
        if state == LoopState.stuck and busy is not None:
            began = datetime.fromtimestamp(time.time() - (time.monotonic() - busy[1])).astimezone()
            error = f"{busy[0]} has not ended for {time.monotonic() - busy[1]:.0f} s"
            since = began.isoformat(timespec="seconds")
            faults.append({"what": f"{self.name}/{busy[0]}", "error": error, "failures": 1, "since": since})
        at = datetime.fromtimestamp(self._finished_at).astimezone() if self._finished_at else None
        finished = at.isoformat(timespec="seconds") if at else None
        return {"name": self.name, "state": str(state), "finished_at": finished, "faults": faults}


class Loops:
    """The loops of a daemon, and the watchdog's look at them, which the daemon's main thread takes."""

    def __init__(self) -> None:
        self._loops: list[Loop] = []

    def start(self, loops: Sequence[Loop]) -> None:
        self._loops = list(loops)
        for loop in self._loops:
            loop.start()

    def look(self) -> None:
        """Start again what has ended, report what is stuck. Raises nothing."""
        for loop in self._loops:
            with suppress(BaseException):
                loop.look()

    def join(self, timeout: float) -> None:
        for loop in self._loops:
            loop.join(timeout)

    def to_json(self) -> list[dict[str, Any]]:
        return [loop.to_json() for loop in self._loops]
