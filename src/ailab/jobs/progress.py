"""How far a job is, from the points that its script has reported (`ailab.progress_client`), and what is wrong there."""

from __future__ import annotations

import json
import math
import os
import stat
import statistics
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

from ailab.i18n import _

# For the PYTHONPATH of a job: the client alone, nothing else of ailab.
CLIENT_FOLDER = Path(__file__).parent.parent / "progress_client"
# A file is the job's, so it is read with care: no more of it than this, from its end. The client's stays below half.
MOST_BYTES = 2 * 2**20
# Enough for the bar and the time that is left.
TAIL_BYTES = 64 * 2**10
# How far back the rate is measured, and over how many points at least, where they are rare.
RATE_SECONDS = 300.0
RATE_POINTS = 5
STALLED_SECONDS = 600.0
STALLED_INTERVALS = 20
_INTERVALS = 50
_LONGEST_NAME = 100
_MOST_METRICS = 200
_CELLS = 20
_FEWEST_CELLS = 5
Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Point:
    """One report. `t` is in seconds since the epoch; `epoch` counts from 1, `step` how many of its steps are done."""

    t: float
    epoch: int | None
    epochs: int | None
    step: int | None
    steps: int | None
    metrics: dict[str, float]

    @property
    def position(self) -> float | None:
        """How many epochs are done, with the part of the running one; where no epoch is told, how many steps."""
        if self.epoch is None:
            return None if self.step is None else float(self.step)
        if self.step is None:
            return float(self.epoch)
        within = min(self.step / self.steps, 1.0) if self.steps else 0.0
        return max(self.epoch - 1 + within, 0.0)

    @property
    def fraction(self) -> float | None:
        """The part of the whole that is done, 0 to 1; None where the script does not tell how much there is."""
        whole = self.steps if self.epoch is None else self.epochs
        if self.position is None or not whole:
            return None
        return min(self.position / whole, 1.0)


@dataclass(frozen=True)
class Progress:
    """The points of a job, the oldest first; there is at least one."""

    points: tuple[Point, ...]

    @property
    def last(self) -> Point:
        return self.points[-1]

    @property
    def fraction(self) -> float | None:
        return self.last.fraction

    @property
    def latest(self) -> dict[str, float]:
        """The last value of each metric; may be NaN or infinite."""
        return {name: value for point in self.points for name, value in point.metrics.items()}

    @property
    def eta_seconds(self) -> float | None:
        """The seconds from the last point to the end, at the rate of the last minutes; None where nothing tells it.

        What was before a start anew does not count: the fraction falls there.
        """
        done = self.last.fraction
        if done is None or done >= 1.0:
            return None if done is None else 0.0
        first, first_done = self.last, done
        for count, point in enumerate(reversed(self.points), start=1):
            earlier = point.fraction
            old = self.last.t - point.t > RATE_SECONDS and count > RATE_POINTS
            if earlier is None or earlier > first_done or point.t > first.t or old:
                break
            first, first_done = point, earlier
        if done == first_done or self.last.t == first.t:
            return None
        return (1.0 - done) * (self.last.t - first.t) / (done - first_done)

    @property
    def usual_interval(self) -> float:
        """The median of the seconds between the last points; 0 where there is one alone."""
        intervals = [later.t - earlier.t for earlier, later in pairwise(self.points[-_INTERVALS:])]
        return statistics.median(intervals) if intervals else 0.0

    def series(self, name: str, points: int = 200) -> Curve:
        """A metric's curve of at most `points` pairs: where (`Point.position`; seconds since the first report where
        that is not told) and the value there, the mean of what lies between. What was computed again after a start anew
        takes the place of what was there before. NaN where no value was finite."""
        found: Curve = []
        for point in self.points:
            if name in point.metrics:
                position = point.position
                where = point.t - self.points[0].t if position is None else position
                while found and found[-1][0] >= where:
                    found.pop()
                found.append((where, point.metrics[name]))
        return coarser(found, points)


def coarser(curve: Curve, points: int) -> Curve:
    """At most `points` pairs, each the mean of what lies between."""
    if len(curve) <= points:
        return curve
    cuts = [index * len(curve) // points for index in range(points + 1)]
    return [_middle(curve[start:end]) for start, end in pairwise(cuts)]


def _middle(part: Curve) -> tuple[float, float]:
    finite = [value for _where, value in part if math.isfinite(value)]
    return part[-1][0], statistics.fmean(finite) if finite else math.nan


def read(path: Path, last_bytes: int = MOST_BYTES) -> Progress | None:
    """The points in a file, or in its last bytes; lines that are torn or are no points are passed over. None where
    there is no file, or no point in it."""
    points = tuple(point for line in _end_of(path, last_bytes).splitlines() if (point := _point(line)) is not None)
    return Progress(points) if points else None


def _end_of(path: Path, count: int) -> bytes:
    """Neither a pipe in its place, which nobody writes to, nor a link makes the reader wait or read something else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        found = os.fstat(descriptor)
        return os.pread(descriptor, count, max(found.st_size - count, 0)) if stat.S_ISREG(found.st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _point(line: bytes) -> Point | None:
    try:
        document = json.loads(line)
        t = float(document["t"])
        metrics = document["metrics"].items()
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    if not math.isfinite(t):
        return None
    numbers = {_name(name): number_of(value) for name, value in list(metrics)[:_MOST_METRICS]}
    epoch, epochs, step, steps = (_count(document.get(name)) for name in ("epoch", "epochs", "step", "steps"))
    known = {name: number for name, number in numbers.items() if name and number is not None}
    return Point(t, epoch, epochs, step, steps, known)


def _name(name: str) -> str:
    """A metric's name as it may be printed on a terminal."""
    return "".join(letter for letter in name[:_LONGEST_NAME] if letter.isprintable())


def number_of(value: Any) -> float | None:
    """A number, or the words that stand for what JSON lacks: NaN, Infinity, -Infinity."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


class Trouble(StrEnum):
    """`nan`: a metric is no finite number. `stalled`: the script has not reported for far longer than usual."""

    nan = "nan"
    stalled = "stalled"


@dataclass(frozen=True)
class ProgressEvent:
    """Something that a person should know of. `metric` is the one that is `value`; nothing came for `seconds`."""

    kind: Trouble
    metric: str = ""
    value: float = 0.0
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """What is told once: of each metric that it is no number, of the job that it has stalled."""
        return f"{self.kind}:{self.metric}" if self.metric else str(self.kind)

    def to_json(self) -> dict[str, Any]:
        """For an event of the lab. JSON has no NaN, so the value is a text."""
        return {"metric": self.metric, "value": str(self.value), "seconds": self.seconds}

    @classmethod
    def from_json(cls, kind: str, data: dict[str, Any]) -> ProgressEvent:
        return cls(Trouble(kind), data.get("metric", ""), float(data.get("value", 0)), float(data.get("seconds", 0)))

    def short(self) -> str:
        if self.kind is Trouble.nan:
            return _("{metric} is {value}").format(metric=self.metric, value=self.value)
        return _("silent for {minutes} min").format(minutes=int(self.seconds // 60))

    def sentence(self) -> str:
        if self.kind is Trouble.nan:
            return _("{metric} is no finite number any more: {value}.").format(metric=self.metric, value=self.value)
        return _("No progress has been reported for {minutes} minutes.").format(minutes=int(self.seconds // 60))


def events_of(progress: Progress, now: float) -> list[ProgressEvent]:
    """What is wrong at `now` (seconds since the epoch) in a job that runs: each metric that is no finite number, and
    a stall, which is no report for 20 of the usual intervals and 10 minutes at least. A training that has reached its
    end may be silent."""
    latest = progress.latest.items()
    found = [ProgressEvent(Trouble.nan, name, value) for name, value in latest if not math.isfinite(value)]
    silent = now - progress.last.t
    finished = progress.fraction is not None and progress.fraction >= 1.0
    if not finished and silent > max(STALLED_SECONDS, STALLED_INTERVALS * progress.usual_interval):
        found.append(ProgressEvent(Trouble.stalled, seconds=silent))
    return found


def bar(progress: Progress, width: int = 80) -> str:
    """One line for a terminal, at most `width` characters: `epoch 3/10 [#####     ] loss 0.2134 ETA 1:20`. Where there
    is little room, the bar and then the metric are left out."""
    last = progress.last
    parts = [_part("epoch", last.epoch, last.epochs) or _part("step", last.step, last.steps), "", _metric(progress)]
    if progress.eta_seconds:
        parts.append(f"ETA {_clock(progress.eta_seconds)}")
    if progress.fraction is not None:
        cells = min(width - len(_joined(parts)) - len("[] "), _CELLS)
        if cells >= _FEWEST_CELLS:
            parts[1] = f"[{'#' * int(progress.fraction * cells):{cells}}]"
    if len(_joined(parts)) > width:
        parts[2] = ""
    return _joined(parts)[:width]


def _joined(parts: list[str]) -> str:
    return " ".join(part for part in parts if part)


def _part(name: str, done: int | None, whole: int | None) -> str:
    if done is None:
        return ""
    return f"{name} {done}/{whole}" if whole else f"{name} {done}"


def _metric(progress: Progress) -> str:
    """The loss, or the first that the script reports."""
    latest = progress.latest
    name = "loss" if "loss" in latest else next(iter(latest), "")
    return f"{name} {latest[name]:.4g}" if name else ""


def _clock(seconds: float) -> str:
    """As 1:20, 2:03:00 or 3d 04:00:00."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02}:{minute:02}:{second:02}"
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
