"""Processes as /proc shows them: who is whose, and whether a pid is still the process that it was."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
from collections.abc import Iterator
from pathlib import Path


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of `pid` (proc(5), stat field 22): with the pid, its identity. None: gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def account_of(pid: int) -> str | None:
    try:
        uid = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def marked(token: str) -> Iterator[int]:
    """The processes whose environment carries AILAB_TASK=`token`."""
    needle = f"AILAB_TASK={token}".encode()
    for entry in os.listdir("/proc"):  # noqa: PTH208  thousands of entries, names only
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if needle in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                    yield int(entry)


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
