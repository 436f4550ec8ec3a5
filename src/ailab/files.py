"""Files that are whole or not there: replaced in one step, read as JSON or not at all; locks, and who holds them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LEFT_SECONDS = 86400.0


def replace(path: Path, text: str, *, mode: int | None = None) -> None:
    """Put `text` in the place of the file at `path`, through a link, in one step that neither a kill nor a power cut
    tears. The file keeps its mode; `mode` is for one that has to have another. Bytes that are no UTF-8, as
    `surrogateescape` reads them, are written as they were."""
    target = path.resolve()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666 if mode is None else mode)
        with os.fdopen(descriptor, "wb") as sink:
            sink.write(text.encode("utf-8", errors="surrogateescape"))
            sink.flush()
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(descriptor, stat.S_IMODE(target.stat().st_mode) if mode is None else mode)
            os.fsync(descriptor)
        unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def clear_unfinished(path: Path) -> None:
    """Remove what killed writers of `path` left beside it; for one who alone may write it."""
    target = path.resolve()
    for unfinished in target.parent.glob(f".{target.name}.*.new"):
        unfinished.unlink(missing_ok=True)


def replace_link(link: Path, target: Path | str) -> None:
    """Make `link` lead to `target`; there is a link at every moment, for whoever follows it now."""
    unfinished = link.with_name(f"{link.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    unfinished.symlink_to(target)
    unfinished.replace(link)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in the file; None where there is none, or none that can be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder in `parent`, removed at the end; so are those there that a kill left a day ago or earlier."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _LEFT_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[int]:
    """Hold the lock at `path`, once it is free; `shared` with others who want it so. Yields its file descriptor."""
    with path.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield held.fileno()


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock at `path`, or not, where another holds it: then False."""
    with path.open("a") as held:
        yield try_lock(held.fileno())


def try_lock(descriptor: int) -> bool:
    """Whether the lock was free, and is now held as long as the descriptor is open."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock: the kernel's word, which no reused pid can fake. Makes nothing."""
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def holder(path: Path) -> int | None:
    """The pid that the holder of the lock wrote into it, believed only while the lock is held."""
    if not is_locked(path):
        return None
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
