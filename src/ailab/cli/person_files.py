"""Files that a person names on the command line: one to write, and one to read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import BinaryIO

from ailab.errors import Conflict, UsageError
from ailab.i18n import _


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that was not there; it goes again when the writing fails."""
    if path.exists() and (not path.is_file() or path.stat().st_size):
        raise Conflict(
            _("{path} is there already.").format(path=path), remedy=_("Choose another name, or remove it first.")
        )
    try:
        raw = FileIO(path, "w")
    except OSError as error:
        raise UsageError(
            _("{path} cannot be written: {reason}.").format(path=path, reason=error.strerror),
            remedy=_("Name a place that you may write to."),
        ) from None
    with BufferedWriter(raw) as sink:
        try:
            yield sink
            sink.flush()
        except BaseException:
            # What is still in memory is not to be written: on a full disk that fails once more.
            raw.truncate(0)
            raw.close()
            # Having given up root, we may not remove it.
            with contextlib.suppress(OSError):
                path.unlink()
            raise


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
