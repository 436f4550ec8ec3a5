"""The output of a task as it is kept in the task's folder: the newest in `log`, what was rotated away in `log.1`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ailab.waiting import wait_for

NAMES = ("log.1", "log")
# Between the two halves of one: the newest file is another's name already, and not yet there.
_ROTATION_SECONDS = 5.0


def lines(folder: Path) -> Iterator[str]:
    """All that is kept. A rotation may have cut a line in two."""
    rest = b""
    for name in NAMES:
        try:
            with (folder / name).open("rb") as source:
                for line in source:
                    rest += line
                    if rest.endswith(b"\n"):
                        yield text(rest[:-1])
                        rest = b""
        except FileNotFoundError:
            continue
    if rest:
        yield text(rest)


def open_oldest(folder: Path) -> BinaryIO | None:
    """The oldest file that is kept; None where there is none yet."""
    return _opened(folder / "log.1") or _opened(folder / "log")


def is_moved(folder: Path, source: BinaryIO) -> bool:
    """Whether a file has been rotated away: nothing more will come to it."""
    return _inode(folder / "log") != os.fstat(source.fileno()).st_ino


def open_next(folder: Path, source: BinaryIO) -> BinaryIO:
    """The file after one that has been rotated away: the oldest that is newer and kept."""
    newest = wait_for(lambda: _opened(folder / "log"), timeout=_ROTATION_SECONDS, what=str(folder / "log"), first=0.001)
    if _inode(folder / "log.1") == os.fstat(source.fileno()).st_ino:
        return newest
    newest.close()
    return (folder / "log.1").open("rb")


def _opened(path: Path) -> BinaryIO | None:
    with contextlib.suppress(FileNotFoundError):
        return path.open("rb")
    return None


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def append(folder: Path, output: Iterator[str], limit: int) -> None:
    """Add the lines that a task has put out, rotating at `limit` bytes. A full disk costs output, nothing else."""
    log = folder / "log"
    with contextlib.suppress(OSError):
        log.touch(mode=0o600)
        size = log.stat().st_size
        sink = log.open("a")
        try:
            for line in output:
                size += len(line) + 1
                if size > limit:
                    sink.close()
                    log.replace(folder / "log.1")
                    log.touch(mode=0o600)
                    sink, size = log.open("a"), len(line) + 1
                sink.write(f"{line}\n")
        finally:
            sink.close()


def text(line: bytes) -> str:
    return line.decode(errors="replace")
