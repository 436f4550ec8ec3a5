"""Whether a generation still is what was built: every file by its RECORD hash, every package by the lock."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ailab.environments import installed
from ailab.environments.installed import Distribution
from ailab.errors import AilabError

if TYPE_CHECKING:
    from ailab.environments.generations import Generation
    from ailab.paths import LabPaths
    from ailab.stacks import Stack

# What a virtual environment and ailab put there themselves, relative to the generation.
_OWN = frozenset({".gitignore", ".lock", "CACHEDIR.TAG", "generation.json", "seal.json", ".compiled", installed.ADDED,
                  *installed.OWN_FILES})  # fmt: skip
_VENVS_SCRIPTS = ("activate", "deactivate", "pydoc.bat", "python")
_VENVS_MODULES = ("_virtualenv.py", "_virtualenv.pth")
# A thread's portion: enough small files to be worth handing over, and no large file behind another.
_PORTION_BYTES = 4_000_000
_PORTION_FILES = 128


class Drifted(AilabError):
    """An environment that is not what its lock says."""

    kind = "drift"


@dataclass(frozen=True)
class PackageProblem:
    """A package that is not as locked. `problem`: missing; extra; version; build (the same version, other files)."""

    name: str
    problem: str
    locked: str | None
    installed: str | None


@dataclass(frozen=True)
class Verification:
    """What was found. Paths are relative to the generation; `files` counts what was compared.

    `damaged` names the packages whose files are not those that were installed: by links, the cache may have the same.
    """

    environment: str
    lock: str
    files: int
    seconds: float
    changed: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    packages: tuple[PackageProblem, ...]
    damaged: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not (self.changed or self.missing or self.extra or self.packages)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self), "seconds": round(self.seconds, 2)}


@dataclass(frozen=True)
class _File:
    """A file that should be there: its place, its hash (empty: any), its bytes, and the package that it came with."""

    path: str
    digest: str
    size: int
    package: str


def verify(generation: Generation) -> Verification:
    """Compare every installed file with its RECORD, and the installed packages with the generation's lock.

    Bytecode is passed over, as RECORD does. Reads all files of the environment: about a second per GB.
    """
    started = time.monotonic()
    site = installed.site_packages(generation.folder)
    found = installed.distributions(site)
    known, lost = _expected(found, site)
    wrong = _compare(known)
    changed = [one for one, there in wrong if there]
    missing = [one.path for one, there in wrong if not there] + lost
    own_changed, own_missing = _own_files(generation)
    problems = tuple(_package_problems(generation, found))
    folder = generation.folder

    def shown(paths: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(os.path.relpath(path, folder) for path in paths))

    return Verification(
        environment=generation.id,
        lock=generation.lock,
        files=len(known),
        seconds=time.monotonic() - started,
        changed=shown([*(one.path for one in changed), *own_changed]),
        missing=shown([*missing, *own_missing]),
        extra=shown(_extra(Path(folder), site, {one.path for one in known})),
        packages=problems,
        damaged=tuple(
            sorted({one.package for one in changed} | {one.name for one in problems if one.problem == "build"})
        ),
    )


def _expected(found: Sequence[Distribution], site: Path) -> tuple[list[_File], list[str]]:
    """The files that the RECORDs name, and the RECORDs that are not there or cannot be read."""
    files: list[_File] = []
    lost: list[str] = []
    for one in found:
        try:
            files += [
                _File(os.path.normpath(f"{site}/{line.path}"), line.digest, line.size, one.name)
                for line in one.files()
                if not line.path.endswith(".pyc")
            ]
        except (OSError, ValueError):
            lost.append(str(one.info / "RECORD"))
    return files, lost


def _compare(files: Sequence[_File]) -> list[tuple[_File, bool]]:
    """The files that are not as recorded, and whether they are there at all; large ones are begun first."""
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as threads:
        return [one for portion in threads.map(_wrong, _portions(files)) for one in portion]


def _portions(files: Sequence[_File]) -> Iterator[list[_File]]:
    portion: list[_File] = []
    size = 0
    for one in sorted(files, key=lambda file: -file.size):
        portion.append(one)
        size += one.size
        if size >= _PORTION_BYTES or len(portion) >= _PORTION_FILES:
            yield portion
            portion, size = [], 0
    yield portion


def _wrong(files: Iterable[_File]) -> list[tuple[_File, bool]]:
    wrong = []
    for one in files:
        try:
            same = _is_as_recorded(one)
        except (FileNotFoundError, NotADirectoryError):
            wrong.append((one, False))
        except OSError:
            wrong.append((one, True))
        else:
            if not same:
                wrong.append((one, True))
    return wrong


def _is_as_recorded(file: _File) -> bool:
    """Hashing gives up the interpreter's lock, so threads do it side by side."""
    if not file.digest:
        Path(file.path).lstat()
        return True
    algorithm, _equals, expected = file.digest.partition("=")
    with open(file.path, "rb", buffering=0) as content:  # noqa: PTH123  tens of thousands of them: no Path for each
        try:
            digest = _hash(content, algorithm, file.size)
        except ValueError:
            return False
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == expected


def _hash(content: FileIO, algorithm: str, size: int) -> bytes:
    """Small files in one read: `file_digest` makes a buffer of 256 KB for each. Raises ValueError for no algorithm."""
    if size > _PORTION_BYTES:
        return hashlib.file_digest(content, algorithm).digest()
    return hashlib.new(algorithm, content.readall()).digest()


def _own_files(generation: Generation) -> tuple[list[str], list[str]]:
    """Of what is not the packages' (our own files, the program): what has been changed, and what is missing."""
    folder = Path(generation.folder)
    sealed = installed.read_seal(folder).own
    missing = {path for path in ({folder / name for name in sealed} | {generation.program}) if not path.exists()}
    # A link of ours may lead out of the environment, to a driver that is not there today.
    missing |= {path for path in installed.added(folder) if not path.is_symlink() and not path.exists()}
    changed = [
        str(folder / name)
        for name, digest in sealed.items()
        if folder / name not in missing and installed.digest_of(folder / name) != digest
    ]
    return changed, [str(path) for path in missing]


def _extra(generation: Path, site: Path, known: set[str]) -> Iterator[str]:
    """Files that no package and nobody of us put there; one name more for a known file is none."""
    known = known | {str(path) for path in installed.added(generation)}
    own = {str(generation / name) for name in _OWN} | {str(site / name) for name in _VENVS_MODULES}
    scripts = tuple(str(generation / "bin" / name) for name in _VENVS_SCRIPTS)
    for path in _walk(str(generation)):
        ours = path in known or path in own or path.startswith(scripts)
        if not ours and not _leads_to_known(Path(path), generation, known):
            yield path


def _walk(folder: str) -> Iterator[str]:
    """All files and links below `folder`, but for compiled bytecode and what else is cached beside it."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                yield entry.path
            elif entry.name != "__pycache__":
                yield from _walk(entry.path)


def _leads_to_known(path: Path, generation: Path, known: set[str]) -> bool:
    """Whether `path` is a link, within the generation, to a file that is verified or to a folder that is walked."""
    if not path.is_symlink():
        return False
    target, root = path.resolve(), generation.resolve()
    if not target.is_relative_to(root):
        return False
    return target.is_dir() or str(generation / target.relative_to(root)) in known


def locked_packages(generation: Generation) -> dict[str, str]:
    """What the generation's lock installs on this machine: name -> version."""
    from packaging.markers import Marker
    from packaging.utils import canonicalize_name

    from ailab.environments.lock import parse_requirements
    from ailab.environments.markers import target

    try:
        text = Path(generation.folder, "requirements.txt").read_text(encoding="utf-8")
    except OSError:
        return {str(canonicalize_name(name)): version for name, version in generation.packages.items()}
    here = target(generation.python, platform.machine())
    applying = (one for one in parse_requirements(text) if not one.marker or Marker(one.marker).evaluate(here))
    return {str(canonicalize_name(one.name)): one.version for one in applying}


def _package_problems(generation: Generation, found: Sequence[Distribution]) -> Iterator[PackageProblem]:
    locked = locked_packages(generation)
    sealed = installed.read_seal(generation.folder).contents
    for name in sorted(locked.keys() - {one.name for one in found}):
        yield PackageProblem(name, "missing", locked[name], None)
    for one in found:
        wanted = locked.get(one.name)
        if wanted is None:
            yield PackageProblem(one.name, "extra", None, one.version)
        elif not _same_version(wanted, one.version):
            yield PackageProblem(one.name, "version", wanted, one.version)
        elif sealed.get(f"{one.name} {one.version}", one.content()) != one.content():
            yield PackageProblem(one.name, "build", wanted, one.version)


def _same_version(one: str, two: str) -> bool:
    """1.0 and 1.0.0 are one version; so are two ways to write a local part."""
    from packaging.version import InvalidVersion, Version

    try:
        return one == two or Version(one) == Version(two)
    except InvalidVersion:
        return False


def prove(generation: Generation, stack: Stack, lab: LabPaths) -> dict[str, Any]:
    """Run the stack's whole proof in the lab's kernel: what it said of itself.

    Raises `AilabError` with the kernel's own traceback when a step of it fails.
    """
    from ailab.environments.kernel import last_document, run_cell

    return last_document(run_cell(generation, lab, stack.whole_proof_code()))
