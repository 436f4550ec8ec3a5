"""Several jobs beside each other: in what they differ, and how far each metric came."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ailab.jobs.differences import facts
from ailab.jobs.progress import Curve
from ailab.jobs.snapshots import Snapshot

# What is better when it is less, and when it is more, by the words that names of metrics are made of.
_LESS = {"loss", "error", "err", "mae", "mse", "rmse", "msle", "mape", "perplexity", "ppl", "wer", "cer", "nll"}
_LESS |= {"crossentropy", "entropy", "divergence", "distance", "hinge"}
_MORE = {"acc", "accuracy", "auc", "precision", "recall", "f1", "iou", "dice", "bleu", "r2", "score", "map", "psnr"}
_MORE |= {"ssim", "similarity", "reward"}


@dataclass(frozen=True)
class Row:
    """Something in which jobs differ: the value of each, None where it has none."""

    kind: str
    name: str
    values: tuple[str | None, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Reached:
    """A metric of one job: its last value, its best one and where on the curve that was. `best` is None where the name
    does not tell what is better."""

    last: float
    best: float | None = None
    at: float | None = None

    def to_json(self) -> dict[str, Any]:
        """What is no finite number is null."""
        return {
            name: value if value is not None and math.isfinite(value) else None for name, value in vars(self).items()
        }


def varying(snapshots: Sequence[Snapshot], parameters: Sequence[Mapping[str, str]] = ()) -> list[Row]:
    """In what the jobs differ, parameters that they have reported first; then as `differences.facts` orders it."""
    rows = _varying("parameter", list(parameters)) if len(parameters) == len(snapshots) else []
    known = [facts(one) for one in snapshots]
    for kind in known[0] if known else ():
        rows += _varying(kind.value, [one[kind] for one in known])
    return rows


def _varying(kind: str, values: Sequence[Mapping[str, str | None]]) -> list[Row]:
    names = sorted({name for one in values for name in one})
    rows = [Row(kind, name, tuple(one.get(name) for one in values)) for name in names]
    return [row for row in rows if len(set(row.values)) > 1]


def direction(metric: str) -> int:
    """-1: less is better; 1: more is; 0: its name does not tell."""
    words = set(re.split(r"[^a-z0-9]+", metric.lower()))
    return -1 if words & _LESS else 1 if words & _MORE else 0


def reached(metric: str, curve: Curve) -> Reached | None:
    """None for a curve without a point."""
    if not curve:
        return None
    sign, finite = direction(metric), [(value, where) for where, value in curve if math.isfinite(value)]
    if not sign or not finite:
        return Reached(curve[-1][1])
    best, at = max(finite, key=lambda pair: (sign * pair[0], -pair[1]))
    return Reached(curve[-1][1], best, at)


def winners(metric: str, values: Sequence[Reached | None]) -> list[bool]:
    """Which of the jobs has reached the best value: none where that cannot be told, or all are the same."""
    known = [one.best for one in values if one is not None and one.best is not None]
    if len(set(known)) < 2:
        return [False] * len(values)
    best = max(known, key=lambda value: direction(metric) * value)
    return [one is not None and one.best == best for one in values]
