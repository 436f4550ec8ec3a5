"""How progress looks: live on a terminal, plain lines in a pipe, and never on standard output."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ailab.cli import invocation

Update = Callable[[str], None]
# The commands that our sentences tell people to type.
COMMANDS = (
    *("up", "down", "status", "open", "verify", "doctor", "init", "events", "env", "image", "bundle"),
    *("run", "jobs", "logs", "rerun", "stop", "top"),
)
_COMMAND = re.compile(rf"(?<![\w./-])ailab (?=(?:{'|'.join(COMMANDS)})\b)")


def as_typed(text: str) -> str:
    """`text` with each command as this person has to type it: `./ailab` in a checkout, with the lab that they named."""
    program = os.environ.get("AILAB_COMMAND") or "ailab"
    if shutil.which("ailab") == program:
        program = "ailab"
    lab = invocation.current.lab
    named = "" if lab is None or "--lab" in text else f"--lab {shlex.quote(str(lab))} "

    def typed(found: re.Match[str]) -> str:
        return f"{program} " + ("" if text[found.end() :].startswith("init") else named)

    return _COMMAND.sub(typed, text)


def say(text: str) -> None:
    """What a person asked for, on standard output."""
    print(as_typed(text))


def note(text: str) -> None:
    """What a person should know on the way, on standard error."""
    print(as_typed(text), file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


@contextmanager
def step(title: str) -> Iterator[Update]:
    """Show one step of a longer work: what, how far, how long.

    Yields a function that takes "how far" as a short text; the last one stands beside the time when the step is done.
    """
    shown = _Live(title) if sys.stderr.isatty() else _Plain(title)
    try:
        yield shown.update
    except BaseException:
        shown.end(done=False)
        raise
    shown.end(done=True)


def _line(title: str, detail: str, seconds: float) -> str:
    text = f"{title}: {detail}" if detail else title
    return f"{text} ({seconds:.1f} s)"


class _Plain:
    """Lines for a pipe or a log: the start, how far every few seconds, the end."""

    EVERY_SECONDS = 5.0

    def __init__(self, title: str) -> None:
        self.title, self.detail = title, ""
        self.started = self.told = time.monotonic()

    def update(self, detail: str) -> None:
        self.detail = detail
        if time.monotonic() - self.told >= self.EVERY_SECONDS:
            self.told = time.monotonic()
            print(f"  {_line(self.title, detail, self.told - self.started)}", file=sys.stderr, flush=True)

    def end(self, *, done: bool) -> None:
        mark = "-" if done else "x"
        line = _line(self.title, self.detail, time.monotonic() - self.started)
        print(f"{mark} {line}", file=sys.stderr, flush=True)


class _Live:
    """A spinner with the time on a terminal; one finished line remains."""

    def __init__(self, title: str) -> None:
        from rich.console import Console

        self.title, self.detail, self.started = title, "", time.monotonic()
        self.console = Console(stderr=True, highlight=False)
        self.status = self.console.status(self, spinner="dots")
        self.status.start()

    def __rich__(self) -> Any:
        from rich.text import Text

        text = Text(_line(self.title, self.detail, time.monotonic() - self.started), overflow="ellipsis")
        text.truncate(max(20, self.console.width - 4), overflow="ellipsis")
        return text

    def update(self, detail: str) -> None:
        self.detail = detail

    def end(self, *, done: bool) -> None:
        from rich.text import Text

        self.status.stop()
        line = Text(_line(self.title, self.detail, time.monotonic() - self.started))
        line.truncate(max(20, self.console.width - 3), overflow="ellipsis")
        mark = Text("\u2713 ", "green") if done else Text("\u2717 ", "red")
        self.console.print(mark + line)


def table(headings: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell (Chinese characters count two), two spaces apart."""
    from unicodedata import east_asian_width

    def width(text: str) -> int:
        return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)

    widths = [max(width(row[column]) for row in [headings, *rows]) for column in range(len(headings))]
    lines = [
        "  ".join(cell + " " * (wide - width(cell)) for cell, wide in zip(row, widths, strict=True)).rstrip()
        for row in [headings, *rows]
    ]
    return "\n".join(lines)


def human_size(count: float) -> str:
    """Bytes as people read them: 1.9 GB (powers of 1000, as disks are sold)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
