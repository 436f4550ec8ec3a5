"""Describe the processes that hold a lock (flock), as /proc/locks lists them, to the person who waits."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ailab.command import redact
from ailab.i18n import _

_PROC = Path("/proc")
_SHOWN = 60


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock, or has inherited one: its account's uid, and its command line."""

    pid: int
    uid: int
    command: str

    def __str__(self) -> str:
        return _("process {pid} ({command}) of the account {account}").format(
            pid=self.pid, command=self.command, account=_account(self.uid)
        )


def find(descriptor: int) -> tuple[Holder, ...]:
    """Those who hold the lock on the open file; empty where they cannot be seen from here, as in another container."""
    file = os.fstat(descriptor)
    try:
        said = _PROC.joinpath("locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return ()
    pids = {pid for line in said for pid in _holding(line, file)}
    # The kernel names who took the lock. When that one has ended, a program that it started has it still.
    found = {pid: holder for pid in pids if (holder := _look(pid)) is not None}
    if pids and not found:
        found = {pid: holder for pid in _inherited(file) if (holder := _look(pid)) is not None}
    return tuple(found[pid] for pid in sorted(found))


def described(holders: tuple[Holder, ...]) -> str:
    return ", ".join(map(str, holders)) or _("a process that cannot be seen from here")


def _holding(line: str, file: os.stat_result) -> Iterator[int]:
    """The pid in a line of /proc/locks, as proc(5) has it: `1: FLOCK ADVISORY WRITE 4711 08:01:1234 0 EOF`."""
    words = line.split()
    if len(words) < 6 or words[1] != "FLOCK" or not words[4].isdigit():
        return
    major, minor, inode = words[5].split(":")
    # Of a file on btrfs or an overlay, stat(2) names another device than the kernel does here.
    if int(inode) == file.st_ino and (os.makedev(int(major, 16), int(minor, 16)) == file.st_dev or int(major, 16) == 0):
        yield int(words[4])


def _inherited(file: os.stat_result) -> Iterator[int]:
    """The processes that have the lock by a descriptor that they were started with; of our own account only."""
    for process in _PROC.iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                for opened in (process / "fdinfo").iterdir():
                    lines = opened.read_text(encoding="ascii").splitlines()
                    locks = [line.partition(":")[2] for line in lines if line.startswith("lock:")]
                    if any(True for line in locks for _pid in _holding(line, file)):
                        yield int(process.name)


def _look(pid: int) -> Holder | None:
    try:
        status = (_PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace").splitlines()
        words = (_PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", errors="replace").split("\0")[:-1]
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in status if ":" in line)
    if fields["State"].split()[0] in ("Z", "X"):
        return None  # it has ended, and holds nothing
    return Holder(pid, int(fields["Uid"].split()[1]), _shown(words) or fields["Name"].strip())


def _shown(words: list[str]) -> str:
    """A command line in one short line: of ailab's own, what a person types."""
    ours = [number for number, word in enumerate(words) if word.endswith("/bin/ailab")]
    if ours:
        words = ["ailab", *words[ours[0] + 1 :]]
    text = redact(shlex.join(words))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
