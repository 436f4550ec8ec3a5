"""Write docs/reference/bounds-STACK.md: what really breaks when each bound of a stack is lifted.

`PYTHONPATH=src python docs/bounds.py tensorflow-2.9 --python 3.10`. For each bound in turn the stack is resolved
without it, today's newest version installed, and the whole proof run (then the bound's probe). Where the resolver stays
within the bound by itself, as the other packages' own metadata ask, it is what `pip install -U` by hand brings. Each
takes an environment and a minute or less; what is built is removed. AILAB_HOME is where downloads are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ailab.environments import interpreters, trial
from ailab.environments.conflicts import brings
from ailab.environments.installed import distributions, site_packages
from ailab.environments.interpreters import Interpreter
from ailab.environments.kernel import run_cell
from ailab.environments.lock import Lock, read_lock, resolve_around
from ailab.environments.markers import target
from ailab.environments.trial import Outcome, Workshop
from ailab.environments.uv import Uv
from ailab.errors import AilabError
from ailab.i18n import use_language
from ailab.paths import MachinePaths
from ailab.settings import MirrorsSection
from ailab.stacks import Bound, Stack, load_stack

REFERENCE = Path(__file__).parent / "reference"
NOTICE = "<!-- Written by docs/bounds.py. Do not edit: change the stack or the script, and run it again. -->"
LONGEST_ERROR = 200
BY_RESOLVER, BY_HAND = "the resolver", "`pip install -U`"
HEAD = """
# The bounds of {title}

Each bound of [`{name}`](../explanation/stacks-and-locks.md#what-a-bound-is) was lifted, one at a time, and the whole
proof run in what came then, on Python {python}. The stack's other bounds and tested versions stayed.

*Brought by* says how the newer version comes: {resolver}, when the stack is resolved without the bound; {hand}, when
the other packages' own metadata hold the resolver back, but not a person who upgrades that one package by hand. *What
happens* is the last line of the error that was seen, in the proof or in the bound's own probe, which passes within the
bound.

To repeat it: `PYTHONPATH=src python docs/bounds.py {name} --python {minor}`.
"""


@dataclass(frozen=True)
class Row:
    """One lifted bound: the version that came then, how it came ("" where none beyond the bound does), how it went."""

    bound: Bound
    version: str
    brought_by: str
    outcome: Outcome | None

    def line(self) -> str:
        return as_line(self.cells())

    def cells(self) -> tuple[str, ...]:
        if self.outcome is None:
            said = "Nothing comes that the bound forbids: the packages' own metadata hold the same."
        elif self.outcome.ok:
            said = "**Nothing broke this time.**"
        else:
            said = f"`{without_folders(self.outcome.error)}`"
        today = datetime.now(UTC).strftime("%Y-%m-%d")
        bound, came = f"`{self.bound.requirement}`", (self.version or "-", self.brought_by or "-")
        return bound, *came, said, today, self.bound.reason


@dataclass(frozen=True)
class Lifting:
    """What all bounds of a stack are lifted with; the stack for this Python and this kind of machine alone."""

    stack: Stack
    python: Interpreter
    uv: Uv
    workshop: Workshop

    def lifted(self, bound: Bound) -> Row:
        wish = Requirement(bound.requirement)
        asked = [] if brings(self.stack, wish.name) else [wish.name]
        if bound.probe:
            self._try_probe(bound, asked)
        others = [one for one in self.stack.bounds if one is not bound]
        loose = self.stack.model_copy(update={"bounds": others})
        try:
            lock = self._resolved(loose, asked, wish.name)
        except AilabError as error:
            return Row(bound, "", BY_RESOLVER, trial.failed(self.python.version, time.monotonic(), error))
        version = self._version(lock, wish.name)
        started = time.monotonic()
        if version and version not in wish.specifier:
            with self.workshop.built(loose, lock, self.python, self.uv, print) as made:
                return Row(bound, version, BY_RESOLVER, self.workshop.proven(loose, made, started, *probes(bound)))
        return self._by_hand(bound, loose, lock)

    def _try_probe(self, bound: Bound, asked: list[str]) -> None:
        """A probe that fails within the bound as well would prove nothing. Raises `AilabError`."""
        lock = self._resolved(self.stack, asked, Requirement(bound.requirement).name)
        with self.workshop.built(self.stack, lock, self.python, self.uv, print) as made:
            run_cell(made, self.workshop.lab, bound.probe)

    def _by_hand(self, bound: Bound, loose: Stack, lock: Lock) -> Row:
        wish, started = Requirement(bound.requirement), time.monotonic()
        with self.workshop.built(loose, lock, self.python, self.uv, print) as made:
            keep = Path(made.folder, "keep.txt")
            keep.write_text("".join(f"{one}\n" for one in loose.short_constraints))
            words = ("pip", "install", "--python", made.program, "--upgrade-package", wish.name, "-c", keep, wish.name)
            self.uv.run(*words)
            there = {one.name: one.version for one in distributions(site_packages(made.folder))}
            version = there[canonicalize_name(wish.name)]
            if version in wish.specifier:
                return Row(bound, version, "", None)
            return Row(bound, version, BY_HAND, self.workshop.proven(loose, made, started, *probes(bound)))

    def _resolved(self, loose: Stack, asked: list[str], name: str) -> Lock:
        """Without the bound, but with all else where it was tested."""
        tested = read_lock(self.stack.shipped_lock)
        stay = [one for one in tested.packages if one.name != canonicalize_name(name)] if tested else []
        here = target(self.python.version, platform.machine())
        applying = [one.at("") for one in stay if not one.marker or Marker(one.marker).evaluate(here)]
        kept = [one for one in applying if one is not None]
        return resolve_around(loose, asked, kept, self.uv, self.python.program)[0]

    def _version(self, lock: Lock, name: str) -> str:
        return next((one.version for one in lock.packages if one.name == canonicalize_name(name)), "")


def without_folders(error: str) -> str:
    """An error as it is on every machine: files as they are called below site-packages, and not too long for a cell."""
    text = re.sub(r"[^\s'\"(\[]*/site-packages/", "", error).replace("`", "'")
    return text if len(text) <= LONGEST_ERROR else text[:LONGEST_ERROR] + " …"


def probes(bound: Bound) -> list[str]:
    return [bound.probe] if bound.probe else []


def page(stack: Stack, python: Interpreter, rows: list[Row]) -> str:
    """The text of a stack's page."""
    head = HEAD.format(title=stack.title, name=stack.name, python=python.version, minor=python.minor,
                       resolver=BY_RESOLVER, hand=BY_HAND)  # fmt: skip
    headings = ("bound", "newest then", "brought by", "what happens", "seen on (UTC)", "why the bound is there")
    table = "\n".join([as_line(headings), as_line(("---",) * len(headings)), *(row.line() for row in rows)])
    return f"{NOTICE}\n\n{head.strip()}\n\n{table}\n"


def as_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def with_rows(text: str, rows: list[Row]) -> str:
    """The text of a page with these rows in the place of the old ones of the same bounds."""
    new = {row.cells()[0]: row.line() for row in rows}
    return "".join(f"{new.get(line.split(' | ')[0].removeprefix('| '), line)}\n" for line in text.splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stack")
    parser.add_argument("--python", default="", help="a Python of the stack: 3.10")
    parser.add_argument("--only", default="", help="only the bound of this package; the other rows of the page stay")
    chosen = parser.parse_args()
    use_language("en")
    uv = Uv(MachinePaths.from_environment(os.environ), MirrorsSection())
    stack = load_stack(chosen.stack)
    python = interpreters.find(stack, chosen.python, uv)
    rows = []
    with trial.workshop(uv.machine) as workshop:
        here = {"pythons": [python.minor], "platforms": [platform.machine()]}
        lifting = Lifting(stack.model_copy(update=here), python, uv, workshop)
        for bound in stack.bounds:
            if chosen.only in ("", Requirement(bound.requirement).name):
                row = lifting.lifted(bound)
                rows.append(row)
                print(json.dumps([row.cells(), row.outcome and row.outcome.detail[-2000:]]), flush=True)
    path = REFERENCE / f"bounds-{stack.name}.md"
    text = with_rows(path.read_text(encoding="utf-8"), rows) if chosen.only else page(stack, python, rows)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
