"""Files that are whole or not there: replaced in one step, read as JSON or not at all; locks, and who holds them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ailab import lock_holders
from ailab.errors import Conflict
from ailab.i18n import _
from ailab.waiting import TimedOut, wait_for

# What is done while a lock is held takes a moment, or the caller says how long.
LOCK_SECONDS = 120.0
# As long as a build may take, with all that it downloads.
BUILD_SECONDS = 7200.0
_MOMENT_SECONDS = 1.0
_LEFT_SECONDS = 86400.0
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _silent(_text: str) -> None:
    pass


_tell_waits: Callable[[str], None] = _silent


def replace(path: Path, text: str, *, mode: int | None = None) -> None:
    """Put `text` in the place of the file at `path`, through a link, in one step that neither a kill nor a power cut
    tears. The file keeps its mode; `mode` is for one that has to have another. Bytes that are no UTF-8, as
    `surrogateescape` reads them, are written as they were."""
    target = path.resolve()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.new")
    if mode is None:
        with contextlib.suppress(FileNotFoundError):
            mode = stat.S_IMODE(target.stat().st_mode)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    try:
        # Nobody reads it before it has the mode that it is to have.
        descriptor = os.open(unfinished, flags, 0o666 if mode is None else mode & 0o600)
        with os.fdopen(descriptor, "wb") as sink:
            sink.write(text.encode("utf-8", errors="surrogateescape"))
            sink.flush()
            if mode is not None:
                os.fchmod(descriptor, mode)
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


def read_regular(path: Path, *, most: int) -> bytes:
    """The content of a file, or the first `most` + 1 bytes of a longer one. Raises `OSError`, also for what is no file:
    another account may have put a pipe there, at which a reader waits for ever, or a device without an end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as source:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, _("not a regular file"), str(path))
        return source.read(most + 1)


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


def tell_waits(tell: Callable[[str], None]) -> None:
    """Have `tell` called with the holder of each lock that this process waits for longer than a moment."""
    global _tell_waits
    _tell_waits = tell


@contextmanager
def locked(
    path: Path, *, shared: bool = False, timeout: float = LOCK_SECONDS, tell: Callable[[str], None] | None = None
) -> Iterator[int]:
    """Hold the lock at `path` once it is free; with `shared`, beside others who share it. Yields its file descriptor.
    After a moment of waiting, `tell` (by default the one given to `tell_waits`) is called with the holder.

    Raises `Conflict`, which names the holder, when it is not free within `timeout` seconds.
    """
    descriptor = _acquire(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, timeout, tell or _tell_waits)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock at `path`, or not, where another holds it: then False."""
    descriptor = open_lock(path)
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)


def _acquire(path: Path, kind: int, timeout: float, tell: Callable[[str], None]) -> int:
    def attempt() -> tuple[int] | None:
        descriptor = open_lock(path)
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            # Another may have put a new file there since it was opened.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return (descriptor,)
        os.close(descriptor)
        return None

    what = _("the lock {path}").format(path=path)
    moment = min(_MOMENT_SECONDS, timeout)
    try:
        return wait_for(attempt, timeout=moment, what=what)[0]
    except TimedOut:
        tell(_("Waiting for {holder}, which holds {path}.").format(holder=_described(path)[0], path=path))
    try:
        return wait_for(attempt, timeout=timeout - moment, what=what)[0]
    except TimedOut:
        holder, pid = _described(path)
        raise Conflict(
            _("{path} was not free within {seconds:g} s: it is held by {holder}.").format(
                path=path, holder=holder, seconds=timeout
            ),
            remedy=_("Wait for it to end, or end it: kill {pid}; then run the same command again.").format(
                pid=pid or "PID"
            ),
        ) from None


def _described(path: Path) -> tuple[str, int | None]:
    """Return a description of the holders of the lock at `path`, and the pid of one of them."""
    try:
        descriptor = open_lock(path)
    except OSError:
        return lock_holders.described(()), None
    try:
        found = lock_holders.find(descriptor)
        return lock_holders.described(found), found[0].pid if found else None
    finally:
        os.close(descriptor)


def open_lock(path: Path) -> int:
    """The lock file at `path`, opened: made where there is none, and nobody else's to open."""
    descriptor = os.open(path, _LOCK_FLAGS, 0o600)
    seen = os.fstat(descriptor)
    if stat.S_IMODE(seen.st_mode) == 0o600 or seen.st_uid != os.geteuid():
        return descriptor
    try:
        _renew(path, descriptor)
    finally:
        os.close(descriptor)
    return os.open(path, _LOCK_FLAGS, 0o600)


def _renew(path: Path, descriptor: int) -> None:
    """Put a new file in the place of a lock that others could open, `descriptor`: one of them may hold it, for ever.
    While a process of our account does, or none can be seen, it stays: its end is waited for."""
    if not try_lock(descriptor):
        holders = lock_holders.find(descriptor)
        if not holders or any(one.uid == os.geteuid() for one in holders):
            return
    new = path.with_name(f".{path.name}.renewed")
    with contextlib.suppress(FileNotFoundError):
        if time.time() - new.stat().st_mtime > _LEFT_SECONDS:
            new.unlink()
    # Its name is what one of us alone can make at a time.
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            new.replace(path)
        else:
            new.unlink()


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
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holder(path: Path) -> int | None:
    """The pid that the holder of the lock wrote into it, believed only while the lock is held."""
    if not is_locked(path):
        return None
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
