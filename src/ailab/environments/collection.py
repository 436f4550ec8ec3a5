"""Taking away generations that nobody needs: not current in any lab, not pinned, not run by a process."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ailab import files
from ailab.environments.generations import Generation, Generations
from ailab.environments.halves import lock_of, remove_halves
from ailab.environments.labs import KnownLab, Labs
from ailab.environments.uv import Uv
from ailab.events import now
from ailab.paths import LabPaths, MachinePaths

# What of a process can tell which files it runs: a venv's own program is a link, so `exe` alone would not do.
_TELLING = ("cmdline", "maps", "environ")
_LINKS = ("exe", "cwd")
_GONE = ".gone-"


@dataclass(frozen=True)
class Kept:
    """Why a generation stays. `reason`: current, previous (both: of the lab `who`), pinned (by `who`), running (the
    process `who`), building."""

    id: str
    reason: str
    who: str


@dataclass(frozen=True)
class Removed:
    """A generation that was taken away (or would be): the bytes that this frees, and those that stay on disk because
    the cache or another generation has the same files."""

    id: str
    freed_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class Collected:
    """What a collection did. `cache_packages` are those whose downloads were dropped, for `cache_freed_bytes`."""

    dry_run: bool
    removed: tuple[Removed, ...]
    kept: tuple[Kept, ...]
    cache_packages: tuple[str, ...] = ()
    cache_freed_bytes: int = 0

    @property
    def freed_bytes(self) -> int:
        return sum(one.freed_bytes for one in self.removed) + self.cache_freed_bytes

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"freed_bytes": self.freed_bytes}


class Pins:
    """Generations that stay whatever happens: a file beside each, with who pinned it and when."""

    def __init__(self, machine: MachinePaths) -> None:
        self._folder = machine.generations

    def pin(self, generation: Generation, *, who: str) -> None:
        files.replace(self._file(generation.id), json.dumps({"who": who, "at": now()}))

    def unpin(self, generation: Generation) -> bool:
        """Whether there was a pin to take away."""
        there = self._file(generation.id).exists()
        self._file(generation.id).unlink(missing_ok=True)
        return there

    def who(self, generation_id: str) -> str | None:
        """Who pinned it; None when nobody did."""
        try:
            text = self._file(generation_id).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            return str(json.loads(text)["who"])
        except (ValueError, KeyError, TypeError):
            return "?"

    def _file(self, generation_id: str) -> Path:
        return self._folder / f".{generation_id}.pin"


def collect(
    machine: MachinePaths, generations: Generations, *, dry_run: bool = False, with_previous: bool = False
) -> Collected:
    """Take away the generations that nobody needs. What a lab would roll back to stays unless `with_previous`.

    While it decides, no lab can be switched; a generation goes by one rename, and is deleted after that, so that a kill
    leaves none in part.
    """
    machine.generations.mkdir(parents=True, exist_ok=True)
    with Labs(machine).collecting():
        found = generations.list()
        kept = reasons_to_keep(machine, found, with_previous=with_previous)
        going = [one for one in found if one.id not in {reason.id for reason in kept}]
        if dry_run:
            return Collected(dry_run, tuple(measure(going)), tuple(kept))
        removed = measure(going)
        gone = [one.id for one in going if _move_away(machine, one)]
    kept += [Kept(one.id, "building", "") for one in going if one.id not in gone]
    remove_halves(machine.generations)
    for folder in machine.generations.glob(f"{_GONE}*"):
        shutil.rmtree(folder, ignore_errors=True)
    return Collected(dry_run, tuple(one for one in removed if one.id in gone), tuple(kept))


def reasons_to_keep(machine: MachinePaths, found: Sequence[Generation], *, with_previous: bool = False) -> list[Kept]:
    """Every reason for which one of the generations must stay."""
    pins = Pins(machine)
    labs = Labs(machine).known(all_of_them=True)
    kept = [reason for lab in labs for reason in _for_lab(machine, lab, with_previous=with_previous)]
    kept += [Kept(one.id, "pinned", who) for one in found if (who := pins.who(one.id)) is not None]
    kept += [Kept(one, "running", str(pid)) for one, pid in running(found)]
    there = {one.id for one in found}
    return [reason for reason in kept if reason.id in there]


def _for_lab(machine: MachinePaths, lab: KnownLab, *, with_previous: bool) -> Iterator[Kept]:
    yield Kept(lab.generation, "current", str(lab.root))
    if with_previous:
        return
    try:
        previous = Generations(machine, LabPaths(lab.root)).before_current()
    except OSError:
        return
    if previous is not None:
        yield Kept(previous, "previous", str(lab.root))


def running(found: Sequence[Generation]) -> Iterator[tuple[str, int]]:
    """(generation, pid) for each process that runs from one, has its files mapped, or was started for it.

    Of another account's process only the command line can be read, which names the environment's Python.
    """
    needles = {one.id: _paths_of(one) for one in found}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        text = b"\n".join(_read(process))
        for generation_id, needle in needles.items():
            if needle.search(text):
                yield generation_id, int(process.name)


def _paths_of(generation: Generation) -> re.Pattern[bytes]:
    """The generation's folder as a process may show it: by the name that we use, and with links resolved."""
    folders = {generation.folder, os.path.realpath(generation.folder)}
    return re.compile(b"(?:" + b"|".join(re.escape(os.fsencode(one)) for one in folders) + rb")(?![\w.-])")


def _read(process: Path) -> Iterator[bytes]:
    for name in _TELLING:
        try:
            yield (process / name).read_bytes()
        except OSError:
            continue
    for name in _LINKS:
        try:
            yield os.fsencode((process / name).readlink())
        except OSError:
            continue


def _move_away(machine: MachinePaths, generation: Generation) -> bool:
    """Rename it out of sight; not one that is being built anew at this moment."""
    folder = Path(generation.folder)
    with files.locked_if_free(lock_of(folder)) as free:
        if free:
            gone = machine.generations / f"{_GONE}{folder.name}"
            shutil.rmtree(gone, ignore_errors=True)
            folder.rename(gone)
        return free


def measure(going: Sequence[Generation]) -> list[Removed]:
    """What taking these away frees. A file that several of them share counts for the last of them."""
    links: dict[tuple[int, int], int] = {}
    measured = []
    for one in going:
        freed = shared = 0
        for seen in _files(one.folder):
            key = (seen.st_dev, seen.st_ino)
            links[key] = links.get(key, seen.st_nlink) - 1
            if links[key] == 0:
                freed += seen.st_blocks * 512
            else:
                shared += seen.st_blocks * 512
        measured.append(Removed(one.id, freed, shared))
    return measured


def _files(folder: Path | str) -> Iterator[os.stat_result]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
            else:
                yield entry.stat(follow_symlinks=False)


def unused_downloads(machine: MachinePaths, remaining: Iterable[Generation]) -> tuple[str, ...]:
    """The packages in uv's cache that none of the remaining generations has.

    From the names of its folders (wheels-vN/pypi/NAME, wheels-vN/index/DIGEST/NAME); where uv arranges them otherwise,
    none are found, and none are lost.
    """
    used = {name for one in remaining for name in one.packages}
    cache = machine.cache / "uv"
    cached = {path.name for pattern in ("wheels-v*/pypi/*", "wheels-v*/index/*/*") for path in cache.glob(pattern)}
    return tuple(sorted(cached - used))


def drop_downloads(machine: MachinePaths, packages: Sequence[str], uv: Uv) -> int:
    """Have uv drop what it keeps of these packages; the bytes that this freed."""
    if not packages:
        return 0
    before = _size_of(machine.cache / "uv")
    uv.run("cache", "clean", "--quiet", *packages)
    return max(0, before - _size_of(machine.cache / "uv"))


def _size_of(folder: Path) -> int:
    """Bytes on disk of the files that are nowhere else."""
    return sum(seen.st_blocks * 512 for seen in _files(folder) if seen.st_nlink == 1)
