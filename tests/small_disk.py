"""A small file system of a test's own, to be filled: by bytes or by files. Needs root."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SmallDisk:
    """What is mounted at `folder`."""

    folder: Path

    @property
    def _filler(self) -> Path:
        return self.folder / ".filler"

    def fill(self) -> None:
        """Leave no byte. What runs may free some, and is not given it back: call it again to keep the disk full."""
        with self._filler.open("ab", buffering=0) as sink, contextlib.suppress(OSError):
            while True:
                sink.write(bytes(64 * 1024))
        with self._filler.open("ab", buffering=0) as sink, contextlib.suppress(OSError):
            while True:
                sink.write(bytes(512))

    def use_up_files(self) -> None:
        """Leave no inode."""
        number = 0
        with contextlib.suppress(OSError):
            while True:
                (self.folder / f".filler-{number}").touch()
                number += 1

    def free(self) -> None:
        for filler in self.folder.glob(".filler*"):
            filler.unlink()

    def make_read_only(self, *, read_only: bool = True) -> None:
        mode = "ro" if read_only else "rw"
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.folder)], check=True)


@contextmanager
def small_disk(folder: Path, megabytes: int, files: int = 0) -> Iterator[SmallDisk]:
    """A tmpfs of so many megabytes and files (0: as many as fit), at a new folder, open to pass through."""
    folder.mkdir(parents=True)
    options = f"size={megabytes}m,mode=0755" + (f",nr_inodes={files}" if files else "")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        os.rmdir(folder)  # noqa: PTH106
