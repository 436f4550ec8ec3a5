"""Generations: environments built once, named by their content, switched by one atomic rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ailab import files
from ailab.disk import disk_full
from ailab.environments import builds, cuda, installed
from ailab.environments.halves import COMPLETE as _COMPLETE
from ailab.environments.halves import bytecode_lock, lock_of, remove_halves, remove_open_locks
from ailab.environments.interpreters import Interpreter
from ailab.environments.labs import Labs
from ailab.environments.lock import Lock
from ailab.environments.uv import Uv
from ailab.errors import NotFound
from ailab.events import now
from ailab.i18n import _
from ailab.paths import LabPaths, MachinePaths, private_folder
from ailab.stacks import Stack

_ROLLBACK = "rollback"
BY_HAND = ("use", _ROLLBACK)
# About what an environment takes when nothing of it is in the cache: TensorFlow's, the largest.
NEEDED_MB = 2000
_LARGEST_RECORD = 16 * 1024 * 1024
# Of a generation that is the same whenever it is made.
_NO_TIME = "2020-01-01T00:00:00+00:00"
_FILES_SHOWN = 2


@dataclass(frozen=True)
class Generation:
    """A built environment. `packages` maps names to versions; `lock` is the digest of the lock it was built from, and
    `interpreter` the program that it was built on."""

    id: str
    stack: str
    title: str
    python: str
    lock: str
    built_at: str
    size_bytes: int
    packages: dict[str, str]
    folder: str
    interpreter: str = ""

    @property
    def program(self) -> Path:
        return Path(self.folder, "bin", "python")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def generation_id(stack: Stack, lock: Lock, interpreter: Interpreter) -> str:
    """The name of what `lock` becomes on this machine: the same lock, Python and platform give the same name."""
    text = json.dumps([lock.digest(), interpreter.version, str(interpreter.program), platform.machine()])
    return f"{stack.name}-py{interpreter.minor.replace('.', '')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class Generations:
    """The machine's generations, and which one a lab uses."""

    def __init__(self, machine: MachinePaths, lab: LabPaths) -> None:
        self._machine = machine
        self._lab = lab

    def list(self) -> list[Generation]:
        """The complete ones, oldest first."""
        found = [self._read(path.parent) for path in self._machine.generations.glob(f"*/{_COMPLETE}")]
        return sorted((one for one in found if one is not None), key=lambda one: one.built_at)

    def get(self, generation_id: str) -> Generation:
        found = self._read(self._machine.generations / generation_id)
        if found is None:
            raise NotFound(
                _("There is no generation {id}.").format(id=generation_id),
                remedy=_("See those there are: ailab env list"),
            )
        return found

    def current(self) -> Generation | None:
        """The generation that the lab uses; None before the first build."""
        try:
            return self._read(self._lab.current.resolve(strict=True))
        except OSError:
            return None

    def _read(self, folder: Path) -> Generation | None:
        try:
            document = json.loads(files.read_regular(folder / _COMPLETE, most=_LARGEST_RECORD))
            known = {item.name: document[item.name] for item in fields(Generation) if item.name in document}
            return Generation(**{**known, "folder": str(folder)})
        except (OSError, ValueError, TypeError):
            return None

    def build(
        self,
        stack: Stack,
        lock: Lock,
        interpreter: Interpreter,
        uv: Uv,
        tell: Callable[[str], None],
        *,
        again: bool = False,
    ) -> tuple[Generation, bool]:
        """The generation of `lock` on this machine, and whether it had to be built; `again` builds one that is there
        anew, and puts the old one back when that fails.

        A half-built one (Ctrl-C, a full disk) is removed at once, and one that a kill left behind before the next
        build. Two builders of one generation build it once. The current generation is not touched.
        """
        name = generation_id(stack, lock, interpreter)
        folder = self._machine.generations / name
        self._machine.generations.mkdir(parents=True, exist_ok=True)
        private_folder(self._machine.locks)
        with files.locked(lock_of(folder), timeout=files.BUILD_SECONDS, tell=tell) as held:
            remove_open_locks(self._machine)
            _bring_back(folder)
            found = self._read(folder)
            if found is not None and found.program.exists() and not again:
                return found, False
            remove_halves(self._machine.generations)
            if again and found is not None:
                _forget_changed(found, uv)
            with files.locked(_compiling(folder, tell), timeout=files.BUILD_SECONDS, tell=tell), _aside(folder):
                _install(folder, stack, lock, interpreter, uv, tell, held)
                return self._complete(folder, name, stack, lock, interpreter), True

    def adopt(self, folder: Path, stack: Stack, lock: Lock, interpreter: Interpreter, *, cache: Path) -> Generation:
        """Make `folder`, into which other means have installed what `lock` names, a generation: whole, and linked by
        its name. `cache` is where the GPU's driver keeps compiled kernels. The same lock gives the same files."""
        name = generation_id(stack, lock, interpreter)
        _bound(folder, stack, lock, cache)
        self._machine.generations.mkdir(parents=True, exist_ok=True)
        files.replace_link(self._machine.generations / name, folder)
        return self._complete(folder, name, stack, lock, interpreter, built_at=_NO_TIME)

    def _complete(
        self, folder: Path, name: str, stack: Stack, lock: Lock, interpreter: Interpreter, *, built_at: str = ""
    ) -> Generation:
        packages, size = _installed(folder)
        installed.seal(folder)
        made = Generation(
            id=name,
            stack=stack.name,
            title=stack.title,
            python=interpreter.version,
            lock=lock.digest(),
            built_at=built_at or now(),
            size_bytes=size,
            packages=packages,
            folder=str(folder),
            interpreter=str(interpreter.program),
        )
        kept = {key: value for key, value in made.to_json().items() if key != "folder"}
        files.replace(folder / _COMPLETE, json.dumps(kept))
        return made

    def use(self, generation_id: str, *, who: str, why: str, wish: str = "") -> Generation:
        """Make a generation the lab's current one: a single rename, and a line in the history.

        `wish` is the digest of what lab.toml asked for at that moment; see `chosen_against`.
        """
        self._lab.environment.mkdir(parents=True, exist_ok=True)
        labs = Labs(self._machine)
        with labs.switching(), files.locked(self._lab.environment / "switch.lock"):
            chosen = self.get(generation_id)
            before = self.current()
            labs.register(self._lab.root, chosen.id)
            last: dict[str, Any] = next(reversed(self.history()), {})
            # A kill may have come between the switch and its line.
            if before is not None and before.id == chosen.id and last.get("to", chosen.id) == chosen.id:
                return chosen
            files.replace_link(self._lab.current, chosen.folder)
            line = {"at": now(), "who": who, "why": why, "from": before.id if before else None, "to": chosen.id}
            line["wish"] = wish
            with (self._lab.environment / "history.jsonl").open("a", encoding="utf-8") as history:
                history.write(json.dumps(line) + "\n")
        return chosen

    def history(self) -> tuple[dict[str, Any], ...]:
        """The switches of this lab, oldest first; a line torn by a crash is passed over."""
        entries = []
        try:
            file = self._lab.environment / "history.jsonl"
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return ()
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and {"who", "why", "to"} <= entry.keys():
                entries.append(entry)
        return tuple(entries)

    def _way_here(self) -> tuple[str, ...]:
        """The generations that led to the current one, oldest first; a rollback takes back what it undid."""
        way: tuple[str, ...] = ()
        for entry in self.history():
            if entry["why"] == _ROLLBACK and entry["to"] in way:
                way = way[: len(way) - way[::-1].index(entry["to"])]
            else:
                way = (*way, entry["to"])
        return way

    def chosen_against(self, wish: str) -> bool:
        """Whether a person switched to the current generation by hand, and lab.toml still asks for what it asked for
        then: their choice stands until lab.toml changes."""
        last: dict[str, Any] = next(reversed(self.history()), {})
        return last.get("why") in BY_HAND and last.get("wish") == wish

    def before_current(self) -> str | None:
        """The generation that a rollback would go to."""
        way = [used for used in self._way_here()[:-1] if self._read(self._machine.generations / used) is not None]
        return way[-1] if way else None

    def rollback(self, *, who: str, wish: str = "") -> Generation:
        """Go back to the generation that was in use before the current one."""
        before = self.before_current()
        if before is not None:
            return self.use(before, who=who, why=_ROLLBACK, wish=wish)
        raise NotFound(_("There is no generation to go back to."), remedy=_("See those there are: ailab env list"))


def _forget_changed(damaged: Generation, uv: Uv) -> None:
    """Have uv fetch what was changed: a file that was written to is the same one in the cache, by its other name."""
    from ailab.environments.verification import verify

    packages = verify(damaged).damaged
    if packages:
        uv.run("cache", "clean", "--quiet", *packages)


def _compiling(folder: Path, tell: Callable[[str], None]) -> Path:
    if files.is_locked(bytecode_lock(folder)):
        tell(_("waiting until its bytecode is compiled"))
    return bytecode_lock(folder)


def _old(folder: Path) -> Path:
    return folder.with_name(f".old-{folder.name}")


def _bring_back(folder: Path) -> None:
    """After a kill while a generation was built anew: the old one, unless the new one was complete."""
    old = _old(folder)
    if old.exists() and not (folder / _COMPLETE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _aside(folder: Path) -> Iterator[None]:
    """Make room for a new `folder`: what stands there is moved aside, and back when the new one does not come about."""
    old = _old(folder)
    if folder.exists():
        folder.rename(old)
    try:
        yield
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if old.exists():
            old.rename(folder)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise disk_full(folder, needed_mb=NEEDED_MB, detail=str(error)) from error
        raise
    shutil.rmtree(old, ignore_errors=True)


def _install(
    folder: Path, stack: Stack, lock: Lock, interpreter: Interpreter, uv: Uv, tell: Callable[[str], None], held: int
) -> None:
    """An environment at its final place: venv, packages by hash, kernel, and bounds for pip by hand.

    uv inherits the lock `held`: one that outlives a killed build keeps the next one waiting, not working beside it.
    """
    uv.run("venv", "--quiet", "--python", interpreter.program, folder, keep_open=[held])
    requirements = folder / "requirements.txt"
    requirements.write_text(lock.requirements(), encoding="utf-8")
    with_cuda = cuda.is_among(stack, {package.name for package in lock.packages})
    needed = NEEDED_MB + (cuda.NEEDED_MB if with_cuda else 0)
    python = folder / "bin" / "python"
    # uv's own lock: made by uv, it would be everybody's to open.
    os.close(files.open_lock(folder / ".lock"))
    told = Downloads(tell).read
    with files.work_folder(uv.machine.work) as work:
        config = builds.settings(stack, lock, work / "uv.toml")
        uv.sync(python, requirements, on_line=told, needed_mb=needed, keep_open=[held], config=config)
    _bound(folder, stack, lock, uv.machine.cache / "cuda")


def _bound(folder: Path, stack: Stack, lock: Lock, cuda_cache: Path) -> None:
    """What stands beside the packages of an environment: the lock's text, the links to its CUDA libraries, and the
    bounds for pip by hand."""
    (folder / "requirements.txt").write_text(lock.requirements(), encoding="utf-8")
    if stack.cuda is not None and cuda.is_among(stack, {package.name for package in lock.packages}):
        installed.note_added(folder, cuda.install(folder, stack.cuda.aliases, cuda_cache))
    (folder / "constraints.txt").write_text("".join(f"{one}\n" for one in stack.short_constraints), encoding="utf-8")
    # Who installs by hand in the environment stays within the bounds, without knowing of them.
    (folder / "pip.conf").write_text(f"[install]\nconstraint = {folder / 'constraints.txt'}\n", encoding="utf-8")


class Downloads:
    """How far uv is, from what it prints: the files on their way, with their sizes, and how many have come."""

    _LINE = re.compile(r"\s*(Downloading|Downloaded|Building|Built|Prepared|Installed) (\S+)(?: \(([^)]+)\))?")

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._coming: dict[str, str] = {}
        self._come = 0

    def read(self, line: str) -> None:
        match = self._LINE.match(line)
        if match is None:
            return
        did, what, size = match[1], match[2], match[3] or ""
        if did in ("Prepared", "Installed"):
            self._tell(_("{count} packages").format(count=what))
            return
        if did in ("Downloading", "Building"):
            self._coming[what] = size
        elif self._coming.pop(what, None) is not None:
            self._come += 1
        shown = [f"{name} {amount}".strip() for name, amount in list(self._coming.items())[-_FILES_SHOWN:]]
        names = ", ".join(shown) + (" …" if len(self._coming) > _FILES_SHOWN else "")
        self._tell(
            _("{come} of {all} large files; now {names}").format(
                come=self._come, all=self._come + len(self._coming), names=names or "-"
            )
        )


def _installed(folder: Path) -> tuple[dict[str, str], int]:
    """What is installed (name -> version), and the bytes of its files, by its records."""
    found = installed.distributions(installed.site_packages(folder))
    return {one.name: one.version for one in found}, sum(one.size_bytes() for one in found)
