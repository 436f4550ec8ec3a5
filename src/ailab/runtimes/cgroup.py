"""What the kernel's control groups say of a task: its limits as they are in force, what it uses, what was killed.

Both hierarchies are read: version 1 (a folder for each controller) and version 2 (one folder). File names and units:
https://docs.kernel.org/admin-guide/cgroup-v1/ and https://docs.kernel.org/admin-guide/cgroup-v2.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ailab.runtimes.base import Limits

_CONTROLLERS = ("memory", "cpu", "cpuacct", "pids")
# Version 1 says "no limit" with the largest number of whole pages that fits into 63 bits.
_UNLIMITED = 1 << 62
_UNIFIED = ""


@dataclass(frozen=True)
class Group:
    """The folders of one control group, by controller; in version 2 there is one, for all of them."""

    folders: dict[str, Path]

    @property
    def is_unified(self) -> bool:
        return _UNIFIED in self.folders

    def read(self, controller: str, name: str) -> str:
        """A file of the group; empty where there is none (any more)."""
        folder = self.folders.get(_UNIFIED if self.is_unified else controller)
        try:
            return (folder / name).read_text().strip() if folder is not None else ""
        except OSError:
            return ""

    def number(self, controller: str, name: str) -> int:
        """A file with one number; 0 for "max", for what version 1 writes instead, and for a file that is not there."""
        text = self.read(controller, name)
        value = int(text) if text.lstrip("-").isdigit() else 0
        return value if 0 < value < _UNLIMITED else 0

    def field(self, controller: str, name: str, key: str) -> int:
        """One line's number in a file of "key number" lines; 0 where there is none."""
        for line in self.read(controller, name).splitlines():
            word, _space, number = line.partition(" ")
            if word == key and number.isdigit():
                return int(number)
        return 0


def group_of(pid: int | str, system: Path = Path("/")) -> Group | None:
    """The control group of a process ("self" for this one), as we can read it; None where we cannot. `system` is where
    /proc and /sys are."""
    try:
        lines = (system / f"proc/{pid}/cgroup").read_text().splitlines()
        mounted = _mounts((system / "proc/self/mountinfo").read_text())
    except OSError:
        return None
    # proc lines: "4:memory:/docker/6f…" in version 1, "0::/system.slice/docker-6f….scope" in version 2.
    paths = {
        controller: path
        for _number, controllers, path in (line.split(":", 2) for line in lines)
        for controller in controllers.split(",")
    }
    shared = [name for name in _CONTROLLERS if name in paths and name in mounted]
    if not shared and _UNIFIED in paths and _UNIFIED in mounted:
        shared = [_UNIFIED]
    try:
        folders = {name: system / mounted[name].leads_to(paths[name]) for name in shared}
    except ValueError:
        return None
    return Group(folders) if folders and all(folder.is_dir() for folder in folders.values()) else None


@dataclass(frozen=True)
class _Mounted:
    """A hierarchy, or what is below one of its groups: in a container, often that container's own group alone."""

    root: str
    place: str

    def leads_to(self, group: str) -> str:
        """The folder of a group, relative to the system's root. Raises ValueError where it cannot be seen here."""
        return str(PurePosixPath(self.place.lstrip("/")) / PurePosixPath(group).relative_to(self.root))


def _mounts(table: str) -> dict[str, _Mounted]:
    """How each controller's hierarchy is mounted: of a table as proc(5), mountinfo, shows it."""
    found: dict[str, _Mounted] = {}
    for line in table.splitlines():
        here, _dash, what = line.partition(" - ")
        _id, _parent, _device, root, place, *_rest = here.split(" ")
        kind, _source, options = what.split(" ", 2)
        if kind == "cgroup":
            found |= {name: _Mounted(root, place) for name in options.split(",") if name in _CONTROLLERS}
        elif kind == "cgroup2":
            found.setdefault(_UNIFIED, _Mounted(root, place))
    return found


def own_limits(system: Path = Path("/")) -> Limits:
    """What this process may use of CPU time and memory at the most: the least that its control group, and those that
    it is in, as far as they can be seen from here, allow. 0: no limit."""
    group = group_of("self", system)
    found = [limits(one) for one in _and_around(group)] if group is not None else []
    return Limits(
        min((one.cpus for one in found if one.cpus), default=0.0),
        min((one.memory_bytes for one in found if one.memory_bytes), default=0),
    )


def _and_around(group: Group) -> Iterator[Group]:
    while all((folder / "cgroup.procs").exists() for folder in group.folders.values()):
        yield group
        group = Group({name: folder.parent for name, folder in group.folders.items()})


def limits(group: Group, shm_bytes: int = 0) -> Limits:
    """The limits in force. Swap counts as allowed unless the kernel says that memory and swap together have no more."""
    if group.is_unified:
        quota, _space, period = group.read("cpu", "cpu.max").partition(" ")
        cpus = int(quota) / int(period) if quota.isdigit() and period.isdigit() else 0.0
        return Limits(cpus, group.number("memory", "memory.max"), group.number("pids", "pids.max"), shm_bytes)
    quota_us, period_us = group.number("cpu", "cpu.cfs_quota_us"), group.number("cpu", "cpu.cfs_period_us")
    return Limits(
        quota_us / period_us if quota_us and period_us else 0.0,
        group.number("memory", "memory.limit_in_bytes"),
        group.number("pids", "pids.max"),
        shm_bytes,
    )


def memory_bytes(group: Group) -> int:
    """Memory in use without the part of the page cache that the kernel would drop first, as `docker stats` counts."""
    if group.is_unified:
        used, droppable = "memory.current", group.field("memory", "memory.stat", "inactive_file")
    else:
        used, droppable = "memory.usage_in_bytes", group.field("memory", "memory.stat", "total_inactive_file")
    return max(0, group.number("memory", used) - droppable)


def memory_peak_bytes(group: Group) -> int:
    """The most that was in use, page cache included; 0 where the kernel does not keep it (version 2 before 5.19)."""
    return group.number("memory", "memory.peak" if group.is_unified else "memory.max_usage_in_bytes")


def cpu_seconds(group: Group) -> float:
    if group.is_unified:
        return group.field("cpu", "cpu.stat", "usage_usec") / 1e6
    return group.number("cpuacct", "cpuacct.usage") / 1e9


def processes(group: Group) -> list[int]:
    """The processes in the group itself; not their threads, and not those of groups below it."""
    return [int(pid) for pid in group.read("memory", "cgroup.procs").split()]


def memory_kills(group: Group) -> int:
    """How many processes the kernel has killed here for memory."""
    name = "memory.events" if group.is_unified else "memory.oom_control"
    return group.field("memory", name, "oom_kill")
