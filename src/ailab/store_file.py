"""Whether a database's file is whole. A damaged one is named, and never taken for a new one."""

from __future__ import annotations

import os
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

from ailab.errors import AilabError
from ailab.i18n import _

# https://www.sqlite.org/fileformat.html, 1.3: the magic string, the page size at 16, the number of pages at 28.
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_DAMAGED = ("file is not a database", "database disk image is malformed", "malformed database schema")


class DamagedStore(AilabError):
    """A database file that cannot be what was written into it."""

    kind = "damaged-store"


def damaged(path: Path, why: str) -> DamagedStore:
    """The error for the lab's database at `path`."""
    aside = path.parent / "damaged"
    move = f"mkdir -p {shlex.quote(str(aside))} && mv {shlex.quote(str(path))}* {shlex.quote(str(aside))}"
    return DamagedStore(
        _("The lab's database {path} is damaged: {why}.").format(path=path, why=why),
        remedy=_(
            "Put a backup of it there. Without one, move it aside and start with an empty one: {move}; ailab up. "
            "Users and their passwords, the list of jobs and the events are then lost; notebooks, environments and "
            "what jobs have written stay. See what else is wrong: ailab doctor"
        ).format(move=move),
    )


def look(path: Path, *, empty: bool = False) -> str:
    """What is wrong with the file at a glance, as a few words; empty where nothing is, or where there is no file. With
    `empty`, a file without a byte is one that is yet to be filled."""
    try:
        with path.open("rb") as source:
            header, size = source.read(_HEADER_BYTES), os.fstat(source.fileno()).st_size
    except FileNotFoundError:
        log = path.with_name(f"{path.name}-wal")
        return _("it is gone, and its log {log} is still there").format(log=log) if log.exists() else ""
    except IsADirectoryError:
        return _("it is a folder")
    except PermissionError:
        return _("this account may not read it")
    if size == 0:
        return "" if empty else _("it has no content")
    if not header.startswith(_MAGIC):
        return _("it is no SQLite database")
    page = int.from_bytes(header[16:18], "big")
    page = 65536 if page == 1 else page
    pages = int.from_bytes(header[28:32], "big")
    if len(header) < _HEADER_BYTES or (size < page * pages and not _has_log(path)):
        return _("it is cut off: {size} of {whole} bytes").format(size=size, whole=page * pages)
    return ""


def _has_log(path: Path) -> bool:
    """Whether pages are in the write-ahead log that the file itself may lack."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size > 0
    except OSError:
        return False


def look_closely(path: Path) -> str:
    """As `look`, for the lab's own database, of every page of which SQLite says whether it is whole. Writes nothing."""
    if (wrong := look(path)) or not path.exists():
        return wrong
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        # That the files beside it cannot be made says nothing about what is in it.
        return str(error) if is_damage(error) else ""
    if said != "ok":
        return str(said).splitlines()[0]
    return "" if names & {"users", "tasks", "events"} else _("it has none of the lab's tables")


def check(path: Path) -> None:
    """Raises `DamagedStore` unless the lab's database at `path` is whole, or is not there at all."""
    if wrong := look_closely(path):
        raise damaged(path, wrong)


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says of a file that it is not what it was."""
    return isinstance(error, sqlite3.DatabaseError) and any(word in str(error) for word in _DAMAGED)
