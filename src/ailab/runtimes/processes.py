"""Processes as /proc shows them: who is whose, and whether a pid is still the process that it was."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
from collections.abc import Iterator
from pathlib import Path

from ailab import files

_SHIM = "/ailab/runtimes/shim.py"


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


def shims(tasks: Path) -> Iterator[tuple[int, Path]]:
    """Our shims of the tasks in a folder: each with the folder of its task, as the command line names it."""
    for pid, words in command_lines():
        is_shim = len(words) > 1 and words[-2].endswith(_SHIM) and Path(words[-1]).parent == tasks
        if is_shim and _is_ours(pid):
            yield pid, Path(words[-1])


def _is_ours(pid: int) -> bool:
    """Processes of other accounts may have any command line."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid == os.geteuid()
    except OSError:
        return False


def shims_about_to_start(tasks: Path) -> list[int]:
    """Shims whose starter is gone and that do not hold their task's lock yet: nothing of the task runs so far."""
    return [pid for pid, folder in shims(tasks) if files.holder(folder / "lock") != pid]


def command_lines() -> Iterator[tuple[int, list[str]]]:
    """Every process that may be looked at, with its words."""
    for entry in os.listdir("/proc"):  # noqa: PTH208  thousands of entries, names only
        if entry.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry), Path("/proc", entry, "cmdline").read_text(errors="replace").rstrip("\0").split("\0")
