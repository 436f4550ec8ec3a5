"""What a full or read-only disk is called, wherever it shows: an OSError, what SQLite says, a tool's output."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ailab.errors import AilabError, DiskFull, ReadOnlyDisk
from ailab.i18n import _
from ailab.paths import LabPaths, MachinePaths

# Less than this and a database cannot so much as write a transaction down.
LEAST_BYTES = 1024**2
LEAST_FILES = 16
MB = 10**6
_DEEPEST = 12
_FULL = re.compile(
    r"no space left on device|os error 28\b|\bENOSPC\b|disk quota exceeded|os error 122\b|\bEDQUOT\b"
    r"|database or disk is full|not enough free space|no usable temporary directory",
    re.IGNORECASE,
)
_READ_ONLY = re.compile(r"read-only file system|os error 30\b|\bEROFS\b", re.IGNORECASE)
# SQLite says so where it cannot make the files beside a database: of a full disk, a read-only one, and other faults.
_MAYBE = re.compile(r"disk I/O error|unable to open database file|attempt to write a readonly database", re.IGNORECASE)
# An absolute path in a tool's output.
_PATH = re.compile(r"(?<![\w.:/])(/[^\s`'\":]+)")


@dataclass(frozen=True)
class Space:
    """One file system: where it is mounted, its bytes and files (inodes), and how many of them this account may still
    use. A file system without a number of its own files has 0 `files`."""

    mount: Path
    size_bytes: int
    free_bytes: int
    files: int
    free_files: int
    is_read_only: bool = False

    @property
    def lacks_files(self) -> bool:
        return self.files > 0 and self.free_files < LEAST_FILES

    @property
    def is_full(self) -> bool:
        return self.free_bytes < LEAST_BYTES or self.lacks_files

    def __str__(self) -> str:
        if self.lacks_files:
            return _("{mount}: {free} of {all} inodes (files) left").format(
                mount=self.mount, free=self.free_files, all=self.files
            )
        return _("{mount}: {free} MB of {all} MB free").format(
            mount=self.mount, free=round(self.free_bytes / MB, 1), all=self.size_bytes // MB
        )


def space(folder: Path) -> Space | None:
    """The file system that `folder`, or the nearest one above it that is there, is on; None where we may not look."""
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        seen, device = os.statvfs(there), there.stat().st_dev
        above = (there.resolve(), *there.resolve().parents)
        mount = next((path for path in above if path.parent.stat().st_dev != device), Path("/"))
    except (OSError, StopIteration):
        return None
    sizes = seen.f_blocks * seen.f_frsize, seen.f_bavail * seen.f_frsize, seen.f_files, seen.f_favail
    return Space(mount, *sizes, is_read_only=bool(seen.f_flag & os.ST_RDONLY))


def folders_of(root: Path | None, machine: MachinePaths) -> tuple[Path, ...]:
    """Where ailab writes: one folder of each place that may be a file system of its own."""
    lab = (root, LabPaths(root).run) if root is not None else ()
    return (*lab, machine.home, Path(os.environ.get("TMPDIR") or "/tmp"))  # noqa: S108  asked for its size


def full_among(folders: Iterable[Path]) -> DiskFull | None:
    """The error for the first of the folders whose file system is full now."""
    for folder in folders:
        seen = space(folder)
        if seen is not None and seen.is_full:
            return disk_full(folder)
    return None


def disk_full(folder: Path, *, needed_mb: int = 0, detail: str = "") -> DiskFull:
    """The error for a full disk under `folder`, with its sizes; `needed_mb` is what was to be written, where known."""
    seen = space(folder) or Space(folder, 0, 0, 0, 0)
    if needed_mb and not seen.lacks_files:
        message = _("The disk is full: {free} MB are free in {folder}; this takes about {needed} MB.").format(
            free=seen.free_bytes // MB, folder=folder, needed=needed_mb
        )
        remedy = _("Make room there (old environments: ailab env gc), or set AILAB_HOME to a folder on a larger disk.")
        return DiskFull(message, remedy=remedy, detail=detail)
    if seen.lacks_files:
        message = _("The disk has no inodes left, so no file can be made. {space}.").format(space=seen)
        look = f"du -x --inodes --max-depth=2 {seen.mount} | sort -n | tail"
    else:
        message = _("The disk is full. {space}.").format(space=seen)
        look = f"du -xh --max-depth=2 {seen.mount} | sort -h | tail"
    environments = space(MachinePaths.from_environment(os.environ).home)
    if environments is not None and environments.mount == seen.mount:
        remedy = _("Make room there; what runs then goes on by itself. Old environments: ailab env gc. Others: {look}")
    else:
        remedy = _("Make room there; what runs then goes on by itself. See what takes it: {look}")
    return DiskFull(message, remedy=remedy.format(look=look), detail=detail)


def read_only(place: Path, detail: str = "") -> ReadOnlyDisk:
    seen = space(place)
    return ReadOnlyDisk(
        _("{path} is on a disk that is mounted read-only ({mount}).").format(
            path=place, mount=seen.mount if seen else "?"
        ),
        remedy=_("Look why: dmesg | tail. Then mount it writable: mount -o remount,rw {mount}").format(
            mount=seen.mount if seen else place
        ),
        detail=detail,
    )


def explain(error: BaseException, folders: Iterable[Path]) -> AilabError | None:
    """The error that says of a fault that it is the disk's; None where it is not. `folders` are those of ailab: where
    the fault does not say which file system is full, the one that is."""
    if isinstance(error, (DiskFull, ReadOnlyDisk)):
        return error
    folders = tuple(folders)
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT):
            return _full(_place(one), folders, str(one))
        if isinstance(one, OSError) and one.errno == errno.EROFS:
            return read_only(_place(one) or next(iter(folders)), str(one))
        said = f"{one}\n{one.detail}" if isinstance(one, AilabError) else str(one)
        if not isinstance(one, (AilabError, OSError, sqlite3.Error)):
            continue
        if _FULL.search(said):
            return _full(_named(said), folders, said)
        if _READ_ONLY.search(said):
            return read_only(_named(said) or next(iter(folders)), said)
        if _MAYBE.search(said):
            closed = (read_only(folder, said) for folder in folders if (seen := space(folder)) and seen.is_read_only)
            told = full_among(folders) or next(closed, None)
            if told is not None:
                told.detail = said
                return told
    return None


def cause(error: AilabError, folders: Iterable[Path]) -> AilabError:
    """`error`, or the full disk behind it: while a disk of ailab's is full, what fails of itself fails because of it.
    What the person asked for wrongly stays what it is."""
    folders = tuple(folders)
    told = explain(error, folders)
    if told is not None:
        return told
    if error.http_status < 500 or (full := full_among(folders)) is None:
        return error
    full.detail = "\n".join(filter(None, (error.message, error.detail)))
    return full


def _full(place: Path | None, folders: tuple[Path, ...], detail: str) -> DiskFull:
    """Of the place that the fault names, unless another one of ours is the one without room."""
    seen = space(place) if place is not None else None
    if place is None or seen is None or not seen.is_full:
        full = full_among(folders)
        if full is not None:
            full.detail = detail
            return full
    return disk_full(place or next(iter(folders), Path("/")), detail=detail)


def _place(error: OSError) -> Path | None:
    name = error.filename2 or error.filename
    return Path(os.fsdecode(name)).absolute() if isinstance(name, (str, bytes, os.PathLike)) else None


def _named(said: str) -> Path | None:
    found = _PATH.search(said)
    return Path(found[1].rstrip(".,;)]")) if found is not None else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from; of a database's error also the driver's own, which SQLAlchemy wraps."""
    seen: BaseException | None = error
    for _step in range(_DEEPEST):
        if seen is None:
            return
        yield seen
        inner = getattr(seen, "orig", None)
        if isinstance(inner, BaseException):
            yield inner
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
