"""A stack tried as it is today: resolved anew, built on each Python, proven as a whole, and nothing of it kept."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ailab.environments import interpreters
from ailab.environments.generations import Generation, Generations
from ailab.environments.interpreters import Interpreter
from ailab.environments.kernel import run_cell
from ailab.environments.lock import Lock
from ailab.environments.uv import Uv
from ailab.environments.verification import prove
from ailab.errors import AilabError
from ailab.paths import LabPaths, MachinePaths, private_folder
from ailab.stacks import Stack

# How a traceback ends: the exception's name and what it says; what it says may go on for lines.
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b.*")


@dataclass(frozen=True)
class Outcome:
    """How the whole proof went on one Python ("3.10.13"). `error` is the line that says why it failed, `detail` all
    that was printed; both are empty where it passed."""

    python: str
    ok: bool
    seconds: float
    error: str = ""
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Workshop:
    """A place for environments that are thrown away: generations and a lab of its own."""

    generations: Generations
    lab: LabPaths

    def try_lock(
        self, stack: Stack, lock: Lock, interpreter: Interpreter, uv: Uv, tell: Callable[[str], None]
    ) -> Outcome:
        """Build `lock` and run the stack's whole proof in it; what was built is removed."""
        started = time.monotonic()
        try:
            with self.built(stack, lock, interpreter, uv, tell) as made:
                return self.proven(stack, made, started)
        except AilabError as error:
            return failed(interpreter.version, started, error)

    @contextmanager
    def built(
        self, stack: Stack, lock: Lock, interpreter: Interpreter, uv: Uv, tell: Callable[[str], None]
    ) -> Iterator[Generation]:
        made, _new = self.generations.build(stack, lock, interpreter, uv, tell)
        try:
            yield made
        finally:
            shutil.rmtree(made.folder, ignore_errors=True)

    def proven(self, stack: Stack, made: Generation, started: float, *more: str) -> Outcome:
        """Run the stack's whole proof in `made`, and then `more` code, a kernel each."""
        try:
            prove(made, stack, self.lab)
            for code in more:
                run_cell(made, self.lab, code)
        except AilabError as error:
            return failed(made.python, started, error)
        return Outcome(made.python, True, time.monotonic() - started)


@contextmanager
def workshop(machine: MachinePaths) -> Iterator[Workshop]:
    """A workshop on the filesystem of the machine's cache, so that what is built there is links."""
    machine.cache.mkdir(parents=True, exist_ok=True)
    _remove_killed(machine.cache)
    with tempfile.TemporaryDirectory(prefix=f"trial-{os.getpid()}-", dir=machine.cache) as folder:
        place = MachinePaths(Path(folder))
        place.generations.mkdir()
        lab = LabPaths(Path(folder, "lab"))
        try:
            for one in lab.private_folders:
                private_folder(one)
            yield Workshop(Generations(place, lab), lab)
        finally:
            shutil.rmtree(lab.run, ignore_errors=True)


def _remove_killed(cache: Path) -> None:
    """Remove the workshops of processes that have been killed; the number of each is in its name."""
    for folder in cache.glob("trial-*"):
        if not Path("/proc", folder.name.split("-")[1]).exists():
            shutil.rmtree(folder, ignore_errors=True)


def failed(python: str, started: float, error: AilabError) -> Outcome:
    return Outcome(python, False, time.monotonic() - started, _why(error), error.detail)


def _why(error: AilabError) -> str:
    """The exception of a traceback, else what the error itself says."""
    lines = [line.strip() for line in error.detail.splitlines()]
    exceptions = [line for line in lines if _EXCEPTION.fullmatch(line)]
    return exceptions[-1] if exceptions else error.message


def pythons_here(stack: Stack, wanted: Sequence[str], uv: Uv) -> dict[str, Interpreter | None]:
    """An interpreter for each of the Pythons `wanted` (all of the stack's, where none are); None for one that is not on
    this machine. Nothing is fetched. Raises `UsageError` for one that the stack does not support."""
    return {
        minor: interpreters.present(stack, minor, uv.machine.pythons, Path.home()) for minor in wanted or stack.pythons
    }
