"""Digests that need not be computed again: those of files whose stamps are as they were."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from ailab import files

# A file system keeps times as coarsely as 2 s (FAT), and Linux stamps a change with the time of its last tick, some
# milliseconds ago. So what is written just after we have read may get the stamps that we saw ("racy git": git's own
# Documentation/technical/racy-git.txt). A stamp that was this old when we read cannot be given to a later change.
RACY_NS = 2_000_000_000


class KnownDigests:
    """The SHA-256 of files by path, size, times of change (of content and of inode, which no program can set) and
    inode. Kept in one JSON file; what is not asked for between reading it and `save` is forgotten."""

    def __init__(self, file: Path) -> None:
        self._file = file
        known = (files.read_json(file) or {}).get("digests")
        self._before: dict[str, Any] = known if isinstance(known, dict) else {}
        self._now: dict[str, list[int | str]] = {}

    def get(self, path: str, seen: os.stat_result) -> str | None:
        """The digest, where it is known of the file as it is."""
        known = self._before.get(path)
        if not isinstance(known, list) or known[:-1] != _stamps(seen):
            return None
        self._now[path] = known
        return str(known[-1])

    def put(self, path: str, seen: os.stat_result, digest: str, *, read_at: int) -> None:
        """Remember the digest of a file that had these stamps before it was read, at `read_at` (nanoseconds since the
        epoch), and after; not of one that changed so lately that its stamps prove nothing."""
        if max(seen.st_mtime_ns, seen.st_ctime_ns) < read_at - RACY_NS:
            self._now[path] = [*_stamps(seen), digest]

    def save(self) -> None:
        """Without room for it, the next one takes longer: nothing else is lost."""
        if self._now != self._before:
            with contextlib.suppress(OSError):
                self._file.parent.mkdir(mode=0o700, exist_ok=True)
                files.replace(self._file, json.dumps({"digests": self._now}), mode=0o600)


def _stamps(seen: os.stat_result) -> list[int]:
    return [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino]


def same_stamps(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether a file has not changed between two looks at it, as far as its stamps tell."""
    return _stamps(one) == _stamps(other)
