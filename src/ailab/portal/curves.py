"""A curve as a small picture in a page: SVG without a script or a style, so that the page's policy allows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import groupby

Pair = tuple[float, float]
# Around the curve: room for the labels of both axes, in the picture's units.
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 8, 18
_LETTERS = 11
_ASIDE = 5
# As many as portal.css has.
COLOURS = 8


def svg_curve(series: Sequence[Pair], width: int, height: int, title: str = "") -> str:
    """A line through the pairs, in the colour of the text around it, with the least and the greatest of both axes.

    The line is broken where a value is no finite number. `title` is read aloud and shown on hovering; it may be any
    text. `width` and `height` are in pixels, and the picture shrinks with its place.
    """
    return _picture([series], width, height, title, colours=("",))


def svg_curves(curves: Sequence[Sequence[Pair]], width: int, height: int, title: str = "") -> str:
    """Several lines on the same axes, the first with the class `line-0`, which gives it its colour, and so on; after
    the last of `COLOURS` they begin anew."""
    colours = [f' class="line-{index % COLOURS}"' for index in range(len(curves))]
    return _picture(curves, width, height, title, colours)


def _picture(curves: Sequence[Sequence[Pair]], width: int, height: int, title: str, colours: Sequence[str]) -> str:
    known = [pair for series in curves for pair in series if all(map(math.isfinite, pair))]
    parts = [
        f'<svg class="curve" role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'xmlns="http://www.w3.org/2000/svg" fill="none" stroke="none">',
        f"<title>{escape(title)}</title>" if title else "",
        f'<path d="M{_LEFT} {_TOP}V{height - _BOTTOM}H{width - _RIGHT}" stroke="currentColor" stroke-opacity="0.35"/>',
    ]
    if not known:
        return "".join([*parts, _label("–", width // 2, height // 2, "middle"), "</svg>"])
    for series, colour in zip(curves, colours, strict=True):
        parts += _lines(series, known, width, height, colour)
    return "".join([*parts, *_labels(known, width, height), "</svg>"])


def _lines(series: Sequence[Pair], known: Sequence[Pair], width: int, height: int, colour: str) -> list[str]:
    columns, values = zip(*known, strict=True)
    left, right, low, high = min(columns), max(columns), min(values), max(values)

    def at(pair: Pair) -> str:
        x = _LEFT + _share(pair[0], left, right) * (width - _LEFT - _RIGHT)
        y = height - _BOTTOM - _share(pair[1], low, high) * (height - _TOP - _BOTTOM)
        return f"{x:.1f},{y:.1f}"

    return [
        # A line of one point is a dot, by its round ends.
        f'<polyline points="{" ".join(at(pair) for pair in (piece * 2 if len(piece) == 1 else piece))}" '
        f'stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round"{colour}/>'
        for piece in _pieces(series)
    ]


def _labels(known: Sequence[Pair], width: int, height: int) -> list[str]:
    """The least and the greatest of both axes; one where they are the same."""
    columns, values = zip(*known, strict=True)
    left, right, low, high = min(columns), max(columns), min(values), max(values)
    floor, middle = height - _BOTTOM, (height + _TOP - _BOTTOM + _LETTERS) // 2
    if low == high:
        drawn = [_label(_short(low), _LEFT - _ASIDE, middle, "end")]
    else:
        drawn = [_label(_short(high), _LEFT - _ASIDE, _TOP + _LETTERS - 3, "end")]
        drawn.append(_label(_short(low), _LEFT - _ASIDE, floor, "end"))
    drawn.append(_label(_short(left), _LEFT, height - _ASIDE, "start"))
    if left != right:
        drawn.append(_label(_short(right), width - _RIGHT, height - _ASIDE, "end"))
    return drawn


def _pieces(series: Sequence[Pair]) -> list[list[Pair]]:
    """The runs of pairs whose numbers are finite."""
    return [list(run) for finite, run in groupby(series, lambda pair: all(map(math.isfinite, pair))) if finite]


def _share(value: float, low: float, high: float) -> float:
    """Where a value lies between two others, 0 to 1; in the middle where they are the same. Halved, so that no
    difference of two great numbers is infinite."""
    return (value / 2 - low / 2) / (high / 2 - low / 2) if high / 2 > low / 2 else 0.5


def _short(value: float) -> str:
    return f"{value:.4g}"


def _label(text: str, x: int, y: int, anchor: str) -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="currentColor" font-size="{_LETTERS}">{escape(text)}</text>'
    )
