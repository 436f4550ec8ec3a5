"""Whether a job's input is still the same: a digest of its content or, of a large one, of its sizes and times."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ailab.jobs.code_files import showable
from ailab.jobs.known_digests import KnownDigests, same_stamps
from ailab.runtimes.base import Stored

CONTENT_BYTES = 1_000_000_000
# Opening a file takes as long as reading a megabyte of it, or longer on a network disk.
CONTENT_FILES = 100_000


class How(StrEnum):
    """What a digest is of. `stamps`: of names, sizes and times of change, because the input is larger than
    `CONTENT_BYTES` or has more than `CONTENT_FILES` files, or a file in it could not be read. `none`: it is not there,
    or cannot be looked into."""

    content = "content"
    stamps = "stamps"
    none = "none"


@dataclass(frozen=True)
class Fingerprint(Stored):
    """`path` as the job named it; how many `files` it has and how many bytes in all."""

    path: str
    how: str
    digest: str = ""
    files: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class _File:
    name: str  # from the input, "." for an input that is a file
    path: Path
    seen: os.stat_result


def fingerprint(path: Path, *, name: str = "", known: KnownDigests | None = None) -> Fingerprint:
    """Of a file, or of all files below a folder; links in it count by where they lead. Never raises for an input that
    is not there. `known` spares reading what has not changed."""
    shown = showable(name or str(path))
    try:
        found = sorted(_files(path.resolve(strict=True)), key=lambda one: one.name)
    except (OSError, RuntimeError):
        return Fingerprint(shown, How.none.value)
    count, total = len(found), sum(one.seen.st_size for one in found)
    if count <= CONTENT_FILES and total < CONTENT_BYTES:
        with contextlib.suppress(OSError):
            rows = [[one.name, _content(one, known)] for one in found]
            return Fingerprint(shown, How.content.value, _digest(rows), count, total)
    stamps = [[one.name, one.seen.st_size, one.seen.st_mtime_ns] for one in found]
    return Fingerprint(shown, How.stamps.value, _digest(stamps), count, total)


def _files(path: Path) -> Iterator[_File]:
    """Every file and link; sockets and the like are none. Raises `OSError` where a folder cannot be read."""
    seen = path.stat()
    if not stat.S_ISDIR(seen.st_mode):
        yield _File(".", path, seen)
        return
    waiting = [(path, "")]
    while waiting:
        folder, above = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((Path(entry.path), f"{above}{entry.name}/"))
                elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
                    yield _File(above + entry.name, Path(entry.path), entry.stat(follow_symlinks=False))


def _content(file: _File, known: KnownDigests | None) -> str:
    if stat.S_ISLNK(file.seen.st_mode):
        return f"-> {file.path.readlink()}"
    digest = known.get(file.name, file.seen) if known is not None else None
    if digest is not None:
        return digest
    read_at = time.time_ns()
    # A pipe that has taken the file's place does not keep us.
    with os.fdopen(os.open(file.path, os.O_RDONLY | os.O_NONBLOCK), "rb") as source:
        before = os.fstat(source.fileno())
        digest = hashlib.file_digest(source, "sha256").hexdigest()
        if known is not None and same_stamps(before, os.fstat(source.fileno())):
            known.put(file.name, before, digest, read_at=read_at)
    return digest


def _digest(rows: Iterable[object]) -> str:
    """SHA-256 of a line of JSON for each."""
    whole = hashlib.sha256()
    for row in rows:
        whole.update(json.dumps(row).encode("ascii") + b"\n")
    return whole.hexdigest()
