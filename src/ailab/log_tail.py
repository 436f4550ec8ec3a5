"""What has been written to a log since a moment, even when the log was rotated meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Position:
    """The end of a log at some moment: the file's inode number, and its size then. Inode 0: there was no file."""

    inode: int = 0
    size: int = 0


def end_of(log: Path) -> Position:
    try:
        seen = log.stat()
    except OSError:
        return Position()
    return Position(seen.st_ino, seen.st_size)


def text_after(log: Path, position: Position) -> str:
    """What was written after `position`. Of a log that was rotated, which moves it to LOG.1, the rest of that file
    comes first."""
    rotated = log.with_name(f"{log.name}.1")
    moved = _read(rotated, position) if end_of(log).inode != position.inode else ""
    return moved + _read(log, position, or_all=True)


def _read(file: Path, position: Position, *, or_all: bool = False) -> str:
    """The text of a file from `position` on; where the position is in another file, all of it or nothing."""
    try:
        with file.open("rb") as source:
            now = end_of(file)
            if now.inode == position.inode and now.size >= position.size:
                source.seek(position.size)
            elif not or_all:
                return ""
            return source.read().decode(errors="replace")
    except OSError:
        return ""
