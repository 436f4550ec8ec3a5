"""How a container ended, by the engine's word and by what was noted before, and how that is told."""

from __future__ import annotations

import signal
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import Any

from ailab import files
from ailab.events import now
from ailab.runtimes import kept_log
from ailab.runtimes.base import Seen, TaskState
from ailab.runtimes.reasons import LOST, OUT_OF_MEMORY

# As a shell says it: found, but it cannot be run; not found.
_CANNOT_RUN, _NOT_THERE = 126, 127
_BY_SIGNAL = 128
_KILLED = _BY_SIGNAL + signal.SIGKILL
# How docker-init (tini) says that it cannot run the command: "[FATAL tini (7)] exec /x failed: No such file…".
_INIT_SAYS = "[FATAL tini"


def never_ran(kept: dict[str, Any], why: str) -> Seen:
    """The end of an attempt that the engine would not start."""
    reason = f"cannot-start: {why.strip()}"
    return Seen(TaskState.exited, ended_at=now(), exit_status=_CANNOT_RUN, reason=reason, attempt=kept["attempt"])


def of(folder: Path, kept: dict[str, Any], seen: dict[str, Any] | None, engine_began: str | None) -> Seen:
    """The end of an attempt whose output has been kept in the task's folder. `seen` is the engine's inspection of its
    container, None where there is no container any more; `engine_began` is when the engine was started, None where that
    is not known. What ended before the engine that tells of it began has ended with the one before.

    The mark `stopping` in the folder says that we ended it; `unanswered`, that it had ended while the engine did not
    answer: one that was ended by a signal then was ended by the engine that went down.
    """
    child = files.read_json(folder / "child.json") or {}
    state = seen["State"] if seen is not None else {}
    status = state.get("ExitCode", _KILLED)
    # Made, and not started: who was about to start it was killed.
    never_started = seen is None or state["Status"] == "created"
    reason, kills = None, int(state.get("OOMKilled", False))
    if (folder / "stopping").exists():
        reason = "stopped"
    elif never_started:
        reason, status = LOST, _KILLED
    elif ((folder / "unanswered").exists() and status >= _BY_SIGNAL) or _is_before(state["FinishedAt"], engine_began):
        reason = LOST
    elif status in (_CANNOT_RUN, _NOT_THERE) and (said := _init_said(folder)):
        reason = f"cannot-start: {said}"
    elif kills and status == _KILLED:
        reason = OUT_OF_MEMORY
    started_at = child.get("started_at")
    return Seen(
        TaskState.exited,
        started_at=started_at,
        # The engine notes the start once it has been told of it: a short one's may be later than its end.
        ended_at=max(moment(state.get("FinishedAt", "")) or now(), started_at or ""),
        exit_status=status,
        reason=reason,
        attempt=kept["attempt"],
        kills=kills,
    )


def _is_before(ended: str, engine_began: str | None) -> bool:
    return engine_began is not None and datetime.fromisoformat(ended) < datetime.fromisoformat(engine_began)


def _init_said(folder: Path) -> str:
    """What docker-init put out, as the last line, when it could not run the command."""
    last = deque(kept_log.lines(folder), maxlen=1)
    return last[0].partition("] ")[2] if last and last[0].startswith(_INIT_SAYS) else ""


def moment(text: str) -> str | None:
    """A time of the engine's as ours, to the millisecond; None for its zero (in the year 1) and for none."""
    if not text or text.startswith("0001"):
        return None
    return datetime.fromisoformat(text).isoformat(timespec="milliseconds")
