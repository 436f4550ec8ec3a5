"""Several jobs beside each other as a person reads them on a terminal: a table in 80 columns, and their curves."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any
from unicodedata import category, east_asian_width

from ailab.cli.job_words import word
from ailab.i18n import _
from ailab.jobs.comparing import Reached, winners

COLUMNS = 80
# So many jobs stand beside each other; more come below.
BESIDE = 5
_LEVELS = "▁▂▃▄▅▆▇█"
_GAP = 2
_DIGEST_SHOWN = 10


def lines(found: dict[str, Any], metrics: Sequence[str] = ()) -> Iterator[str]:
    """`found` is what the daemon's API answers; `metrics` are those to show, empty: all, and the first four as curves.
    The best of a row is marked with a star."""
    jobs = found["jobs"]
    shown = [name for name in found["metrics"] if not metrics or name in metrics]
    for start in range(0, len(jobs), BESIDE):
        if start:
            yield ""
        yield from _table(found, shown, slice(start, start + BESIDE))
    for name in shown if metrics else shown[:4]:
        yield ""
        yield from _curves(name, found["curves"][name], jobs)


def _table(found: dict[str, Any], metrics: Sequence[str], part: slice) -> Iterator[str]:
    jobs = found["jobs"][part]
    wide = min(18, (COLUMNS - 24) // len(jobs) - _GAP)
    name_wide = COLUMNS - (wide + _GAP) * len(jobs)

    def row(name: str, cells: Sequence[str]) -> str:
        return (_cut(name, name_wide) + "".join(" " * _GAP + _cut(cell, wide) for cell in cells)).rstrip()

    yield row(_("JOB"), [str(job["id"]) for job in jobs])
    yield row(_("Name"), [job["name"] for job in jobs])
    yield row(_("State"), [word(job["state"]) for job in jobs])
    for name in metrics:
        known = [
            None if one is None else Reached(_number(one["last"]), one["best"], one["at"])
            for one in found["metrics"][name]
        ]
        marks = winners(name, known)[part]
        yield row(name, [_short(one.last) if one is not None else "-" for one in known[part]])
        if any(one is not None and one.best is not None for one in known):
            yield row(
                "  " + _("best"),
                [_best(one) + ("*" if mark else "") for one, mark in zip(known[part], marks, strict=True)],
            )
    for each in found["differences"]:
        if each["kind"] != "package":
            yield row(_titled(each, found["metrics"]), [_value(value) for value in each["values"][part]])
    packages = sum(each["kind"] == "package" for each in found["differences"])
    if packages:
        yield _("{count} packages differ, too. Which: ailab jobs diff A B").format(count=packages)


def _curves(name: str, curves: Sequence[Sequence[Sequence[float | None]] | None], jobs: Sequence[Any]) -> Iterator[str]:
    """One line a job, all on the same scale and the same way along."""
    points = [[(x, y) for x, y in curve or () if x is not None and y is not None] for curve in curves]
    known = [y for curve in points for _x, y in curve]
    if not known:
        return
    low, high = min(known), max(known)
    start, end = min(x for one in points for x, _y in one), max(x for one in points for x, _y in one)
    ids = max(len(str(job["id"])) for job in jobs)
    room = COLUMNS - ids - _GAP - 12
    yield _cut(f"{name}  {_short(low)} … {_short(high)}", COLUMNS).rstrip()
    for job, curve in zip(jobs, points, strict=True):
        if curve:
            drawn = _drawn(curve, (start, end), (low, high), room)
            yield f"{job['id']:>{ids}}{' ' * _GAP}{drawn}  {_short(curve[-1][1])}"


def _drawn(
    curve: Sequence[tuple[float, float]], across: tuple[float, float], up: tuple[float, float], room: int
) -> str:
    """In each column the last value that the curve has there; a gap is filled with what came before it."""
    cells: list[float | None] = [None] * room
    for x, y in curve:
        share = (x - across[0]) / (across[1] - across[0]) if across[1] > across[0] else 0.0
        cells[min(room - 1, int(share * (room - 1)))] = y
    last = max(index for index, value in enumerate(cells) if value is not None)
    text, before = "", None
    for value in cells[: last + 1]:
        before = value if value is not None else before
        text += " " if before is None else _LEVELS[_level(before, *up)]
    return text + " " * (room - len(text))


def _level(value: float, low: float, high: float) -> int:
    # Halved, so that no difference of two great numbers is infinite.
    share = (value / 2 - low / 2) / (high / 2 - low / 2) if high / 2 > low / 2 else 0.5
    return min(len(_LEVELS) - 1, int(share * len(_LEVELS)))


def _titled(row: dict[str, Any], metrics: Collection[str]) -> str:
    name = str(row["name"])
    # An option says itself what it is; so does a parameter, unless a metric has the same name.
    plain = name.startswith("-") if row["kind"] == "argument" else row["kind"] == "parameter" and name not in metrics
    return name if plain else f"{row['kind']} {name}".strip()


def _value(value: str | None) -> str:
    """Of long digests the beginning; what a terminal would act on is left out."""
    if value is None:
        return "-"
    text = "".join(letter for letter in value if category(letter)[0] != "C")
    return text[:_DIGEST_SHOWN] if len(text) >= 40 and text.isalnum() else text or "+"


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _short(value: float) -> str:
    return f"{value:.4g}"


def _best(one: Reached | None) -> str:
    if one is None or one.best is None:
        return "-"
    return _short(one.best) + (f" @{one.at:g}" if one.at is not None else "")


def _cut(text: str, wide: int) -> str:
    """`text` in just so many columns; a Chinese letter takes two."""
    found, room = "", wide
    for letter in text:
        takes = 2 if east_asian_width(letter) in "WF" else 1
        if takes > room:
            return found[:-1] + "…" + " " * room if room == 0 else found + " " * room
        found, room = found + letter, room - takes
    return found + " " * room
