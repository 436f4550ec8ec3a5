"""Files below a folder, reached so that no link on the way leads anywhere else."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# A pipe in a file's place must not keep us waiting for its writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


class Beneath:
    """Files by their path below `folder`, with / between the names.

    Who may write there may put a link in the place of a folder at any moment, also between two of our looks, and we may
    read what they may not. So each folder on the way is opened from the one above it, and none through a link: that is
    `NotADirectoryError` or another `OSError`.
    """

    def __init__(self, folder: Path) -> None:
        self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._last: tuple[str, int] = ("", self._root)

    def __enter__(self) -> Beneath:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._forget()
        os.close(self._root)

    def stat(self, path: str) -> os.stat_result:
        """Of the file itself, also where it is a link."""
        folder, name = self._at(path)
        return os.stat(name, dir_fd=folder, follow_symlinks=False)

    def target(self, path: str) -> str:
        """Where the link leads, as it is written in it."""
        folder, name = self._at(path)
        return os.readlink(name, dir_fd=folder)

    def open(self, path: str) -> BinaryIO:
        folder, name = self._at(path)
        return os.fdopen(os.open(name, _FILE, dir_fd=folder), "rb")

    def _at(self, path: str) -> tuple[int, str]:
        """The folder of a file, open, and the file's name in it. The last one stays open: paths come in order."""
        above, _slash, name = path.rpartition("/")
        if self._last[0] != above:
            self._forget()
            self._last = (above, self._opened(above))
        return self._last[1], name

    def _opened(self, path: str) -> int:
        folder = self._root
        for name in path.split("/") if path else ():
            try:
                inner = os.open(name, _FOLDER, dir_fd=folder)
            finally:
                if folder != self._root:
                    os.close(folder)
            folder = inner
        return folder

    def _forget(self) -> None:
        if self._last[1] != self._root:
            os.close(self._last[1])
        self._last = ("", self._root)
