"""The differences between two jobs as a person reads them: 80 columns, one kind after the other."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from itertools import groupby
from unicodedata import category, east_asian_width

from ailab.i18n import _
from ailab.jobs.code_files import LeftOut, Why
from ailab.jobs.differences import Difference, Differences, Kind

COLUMNS = 80
_MARKS = {"added": "+", "removed": "-", "changed": "~"}
_DIGEST_SHOWN = 12
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def lines(differences: Differences, *, columns: int = COLUMNS) -> list[str]:
    """Marked as `diff` does: + only the second has it, - only the first, ~ both and it differs. Values stand as they
    are; what a terminal would act on (control characters) is shown as its code."""
    found = list(_said(differences, columns))
    for one in differences.not_compared:
        found += _wrapped(_left_out(one), columns, "", "  ")
    return found


def _said(differences: Differences, columns: int) -> Iterator[str]:
    if not differences.found:
        yield _("No difference.")
    for kind, group in groupby(differences.found, key=lambda one: one.kind):
        yield _heading(kind)
        for one in group:
            yield from _one(one, columns)


def _heading(kind: str) -> str:
    headings = {
        Kind.command: _("Command"),
        Kind.argument: _("Arguments"),
        Kind.folder: _("Folder"),
        Kind.seed: _("Seed"),
        Kind.workers: _("Workers"),
        Kind.variable: _("Variables (their names; values are not kept)"),
        Kind.code: _("Code"),
        Kind.git: "git",
        Kind.input: _("Inputs"),
        Kind.environment: _("Environment"),
        Kind.package: _("Packages"),
        Kind.gpu: _("GPUs"),
        Kind.host: _("Machine"),
        Kind.ailab: "ailab",
    }
    return headings[Kind(kind)]


def _one(one: Difference, columns: int) -> Iterator[str]:
    name = _printable(one.name)
    if one.kind == Kind.code:
        yield from _wrapped(
            name or _("It differs; the files are not kept any more."), columns, f"  {_mark(one)} ", "      "
        )
        for line in one.text.split("\n") if one.text else ():
            yield from _pieces(_printable(line), columns, "      ")
        if one.cut:
            yield "      " + _("{count} more lines").format(count=one.cut)
        return
    times = "x" if one.kind == Kind.gpu else ""
    before, after = times + _value(one.before), times + _value(one.after)
    if one.before is not None and one.after is not None:
        text = f"{name}: {before} -> {after}" if name else f"{before} -> {after}"
        if _width(text) + 4 > columns:
            yield from _wrapped(name, columns, "  ~ ", "      ") if name else ["  ~"]
            yield from _pieces(before, columns, "      - ")
            yield from _pieces(after, columns, "      + ")
            return
    else:
        text = f"{name} {before if one.after is None else after}".strip()
    yield from _pieces(text, columns, f"  {_mark(one)} ")


def _mark(one: Difference) -> str:
    return _MARKS[one.change]


def _value(value: str | None) -> str:
    """A value; of long digests the beginning."""
    words = _printable(value or "").split(" ")
    return " ".join(word[:_DIGEST_SHOWN] if _DIGEST.fullmatch(word) else word for word in words)


def _left_out(one: LeftOut) -> str:
    reasons = {
        Why.large: _("Not compared, because they are too large: {names}"),
        Why.many: _("Not compared, because there are too many files: {names}"),
        Why.secret: _("Not compared, because they look like secrets: {names}"),
        Why.unreadable: _("Not compared, because they cannot be read: {names}"),
    }
    names = ", ".join(_printable(name) for name in one.names)
    rest = one.count - len(one.names)
    if rest > 0:
        names = _("{some} and {count} more").format(some=names, count=rest)
    return reasons[Why(one.why)].format(names=names)


def _printable(text: str) -> str:
    """`text` without what a terminal would act on."""
    text = text.replace("\t", "    ")
    return "".join(
        letter if category(letter)[0] != "C" or letter == "\u200d" else letter.encode("unicode_escape").decode()
        for letter in text
    )


def _width(text: str) -> int:
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _wrapped(text: str, columns: int, first: str, later: str) -> list[str]:
    """At spaces; a Chinese text is wider than textwrap believes, and is cut where the line is full."""
    if _width(text) == len(text):
        return textwrap.wrap(text, columns, initial_indent=first, subsequent_indent=later, break_on_hyphens=False) or [
            first.rstrip()
        ]
    return _pieces(text, columns, first, later)


def _pieces(text: str, columns: int, first: str, later: str | None = None) -> list[str]:
    """`text` cut where the line is full, nothing of it left out."""
    found, line, room = [], first, columns - len(first)
    for letter in text:
        wide = _width(letter)
        if wide > room:
            found.append(line)
            line = " " * len(first) if later is None else later
            room = columns - len(line)
        line += letter
        room -= wide
    return [*found, line.rstrip()]
