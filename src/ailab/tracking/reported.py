"""What a training has reported, as MLflow takes it: from the file of its Keras fits, else from its progress."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ailab.jobs.progress import Point, Progress, number_of
from ailab.tracking.api import LONGEST_KEY, LONGEST_PARAM

# So much of a file is taken at a time; a line that is longer is passed over.
PART_BYTES = 256 * 1024
_FORBIDDEN = re.compile(r"[^\w./ :-]")
_MOST_METRICS = 200


@dataclass
class Part:
    """What is new in a training's file: metrics and parameters as MLflow takes them, and where reading goes on."""

    metrics: list[dict[str, Any]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    offset: int = 0
    more: bool = False


def read_part(path: Path, offset: int) -> Part:
    """The lines from `offset` on that are whole; none where there is no file. It is the job's, so it is read with care:
    no link, no pipe, and what is no report is passed over."""
    part = Part(offset=offset)
    data = _bytes(path, offset)
    end = data.rfind(b"\n") + 1
    if not end:
        # A line of more than a part is no report.
        part.offset += len(data) if len(data) == PART_BYTES else 0
        part.more = len(data) == PART_BYTES
        return part
    part.offset += end
    part.more = len(data) == PART_BYTES
    for line in data[:end].splitlines():
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            _take(part, document)
    return part


def _bytes(path: Path, offset: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(descriptor, PART_BYTES, offset) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _take(part: Part, document: dict[str, Any]) -> None:
    params, metrics = document.get("params"), document.get("metrics")
    if isinstance(params, dict):
        part.params |= {key_of(str(name)): str(value)[:LONGEST_PARAM] for name, value in params.items()}
    if isinstance(metrics, dict):
        at, step = number_of(document.get("t")), number_of(document.get("epoch"))
        if at is not None and step is not None and math.isfinite(at) and math.isfinite(step):
            part.metrics += _metrics(metrics, at, int(step))


def points_after(progress: Progress | None, t: float) -> list[dict[str, Any]]:
    """The metrics of the points that are newer than `t`. The step is the last epoch that is done where one is told
    alone, how many steps are done where these are, else the seconds since the first point."""
    found: list[dict[str, Any]] = []
    for point in progress.points if progress is not None else ():
        if point.t > t:
            assert progress is not None, "it has a point"
            found += _metrics(point.metrics, point.t, _step(point, progress.points[0].t))
    return found


def _step(point: Point, first: float) -> int:
    if point.step is not None:
        return point.step + (max(0, (point.epoch or 1) - 1) * (point.steps or 0))
    return point.epoch if point.epoch is not None else int(point.t - first)


def _metrics(values: dict[str, Any], at: float, step: int) -> list[dict[str, Any]]:
    named = [(key_of(str(name)), number_of(value)) for name, value in list(values.items())[:_MOST_METRICS]]
    return [
        {"key": key, "value": _value(number), "timestamp": round(at * 1000), "step": step}
        for key, number in named
        if key and number is not None
    ]


def _value(number: float) -> float | str:
    """As protobuf's JSON has what JSON lacks."""
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def key_of(name: str) -> str:
    """A name that MLflow takes: letters, digits, and `_ - . / :` and spaces; no path that leads upwards."""
    return _FORBIDDEN.sub("_", name).strip("/. ")[:LONGEST_KEY].replace("..", "__").replace("//", "/")
