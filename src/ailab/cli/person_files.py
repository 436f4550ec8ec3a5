"""Files that a person names on the command line: one to write, and one to read."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import BinaryIO

from ailab.errors import Conflict, UsageError
from ailab.i18n import _


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that was not there, or an empty one of ours; it goes again when the writing fails.

    Where all may write, as in /tmp, another may have put a link or a pipe there: neither is followed.
    """
    try:
        folder = os.open(path.absolute().parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritable(path, error) from None
    with ExitStack() as held:
        held.callback(os.close, folder)
        raw = _opened(folder, path)
        with BufferedWriter(raw) as sink:
            try:
                yield sink
                sink.flush()
            except BaseException:
                made = os.fstat(raw.fileno())
                # What is still in memory is not to be written: on a full disk that fails once more.
                raw.truncate(0)
                raw.close()
                # Having given up root, we may not remove it.
                with contextlib.suppress(OSError):
                    if os.path.samestat(made, os.stat(path.name, dir_fd=folder, follow_symlinks=False)):
                        os.unlink(path.name, dir_fd=folder)
                raise


def _opened(folder: int, path: Path) -> FileIO:
    """The file called as `path` is in the open `folder`."""
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            descriptor = os.open(path.name, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
        except FileExistsError:
            descriptor = os.open(path.name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # a link, a pipe, a folder
            raise _is_there(path) from None
        raise _unwritable(path, error) from None
    seen = os.fstat(descriptor)
    if not stat.S_ISREG(seen.st_mode) or seen.st_size or seen.st_nlink != 1 or seen.st_uid != os.geteuid():
        os.close(descriptor)
        raise _is_there(path)
    return FileIO(descriptor, "w")


def _is_there(path: Path) -> Conflict:
    return Conflict(
        _("{path} is there already.").format(path=path), remedy=_("Choose another name, or remove it first.")
    )


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(
        _("{path} cannot be written: {reason}.").format(path=path, reason=error.strerror),
        remedy=_("Name a place that you may write to."),
    )


@contextmanager
def a_file(path: Path, remedy: str) -> Iterator[BinaryIO]:
    """The file at `path`, opened to be read; `remedy` is for one that cannot be."""
    try:
        source = path.open("rb")
    except OSError as error:
        raise UsageError(
            _("{path} cannot be read: {reason}.").format(path=path, reason=error.strerror), remedy=remedy
        ) from None
    with source:
        yield source
