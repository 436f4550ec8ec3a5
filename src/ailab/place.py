"""Where a lab was when its daemon started: tells a lab that was moved since from a copy of it.

Processes keep to the folder itself, whatever it is called now; what they say of it, and the paths that they open later,
are those of its old name. A folder is known by its device and inode, which a copy does not have.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ailab import files
from ailab.paths import LabPaths

_GONE = " (deleted)"


@dataclass(frozen=True)
class Place:
    """A lab's folder by name, device and inode, and its run folder, which may stand elsewhere."""

    root: Path
    device: int
    inode: int
    run: Path

    @classmethod
    def of(cls, lab: LabPaths) -> Place:
        seen = lab.root.stat()
        return cls(lab.root, seen.st_dev, seen.st_ino, lab.run)

    def is_there(self) -> bool:
        """Whether the folder still has its name."""
        return _is(self.root, self.device, self.inode)


def note(lab: LabPaths) -> Place:
    """Write down where the lab is, if that is not known; on a full disk it stays as it was."""
    here = Place.of(lab)
    if known(lab) != here:
        values = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(here).items()}
        with suppress(OSError):
            files.replace(lab.place, json.dumps(values), mode=0o600)
    return here


def known(lab: LabPaths) -> Place | None:
    """Where the lab was when its daemon last started; None where that was never written down."""
    told = files.read_json(lab.place)
    try:
        return None if told is None else Place(Path(told["root"]), told["device"], told["inode"], Path(told["run"]))
    except (KeyError, TypeError):
        return None


def moved_from(lab: LabPaths) -> Place | None:
    """Where the lab was, if it is elsewhere now. None for a copy: the lab that it was made of is still there."""
    was = known(lab)
    return None if was is None or was.root == lab.root or was.is_there() else was


def works_in(pid: int, place: Place) -> bool:
    """Whether a process has the folder as its own, under whatever name."""
    return _is(Path(f"/proc/{pid}/cwd"), place.device, place.inode)


def left_of(was: Place) -> Iterator[int]:
    """The lab's processes that a move to another file system has left without their folder: they name it, and it was
    removed under them. Those of a lab that stands at its old place today have theirs."""
    for entry in os.listdir("/proc"):  # noqa: PTH208  thousands of entries, names only
        if not entry.isdigit():
            continue
        try:
            folder = os.readlink(f"/proc/{entry}/cwd")  # noqa: PTH115  the suffix is no part of a path
        except OSError:
            continue
        if folder.endswith(_GONE) and Path(folder.removesuffix(_GONE)).is_relative_to(was.root):
            yield int(entry)


def _is(path: Path, device: int, inode: int) -> bool:
    try:
        seen = path.stat()
    except OSError:
        return False
    return (seen.st_dev, seen.st_ino) == (device, inode)
