"""What the checks look at. It is all handed to them: no check asks the process it runs in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ailab.engine_gpus import Means
from ailab.paths import LabPaths, MachinePaths
from ailab.settings import Settings


@dataclass(frozen=True)
class Daemon:
    """The lab's daemon: the process that holds its lock, if any, and whether it answers."""

    pid: int | None
    answers: bool


@dataclass(frozen=True)
class Graphics:
    """NVIDIA's GPUs by name, whether anything shows that there is one, what that is, and why it does not serve with its
    remedy (None: it serves)."""

    gpus: tuple[str, ...]
    there: bool
    evidence: str
    why_not: tuple[str, str] | None


@dataclass(frozen=True)
class Probes:
    """What only other parts of ailab can tell. Each raises `AilabError` with a remedy when it is not as it should be.

    `settings` reads lab.toml and lab.lock; `python` says which interpreter the environment would be built on, empty for
    none that is here; `port` refuses a web port that cannot be had; `graphics` looks at the driver; `running` are
    the ids of tasks that run; `halves` are the folders that killed builds left behind, which `remove_halves` removes.
    `engine` is what the container engine says of itself, `engine_log` the end of its log as far as this account may
    read it, `engine_gpus` what it and the machine have for GPUs in containers, and `lost_gpus` are the names of labs'
    containers that have lost theirs. `private_network` refuses where workers that train together cannot have one.
    """

    settings: Callable[[], None]
    python: Callable[[], str]
    port: Callable[[], None]
    graphics: Callable[[], Graphics]
    daemon: Callable[[], Daemon]
    running: Callable[[], tuple[str, ...]]
    halves: Callable[[], tuple[Path, ...]]
    remove_halves: Callable[[], None]
    engine: Callable[[], Mapping[str, Any]]
    engine_log: Callable[[], str]
    engine_gpus: Callable[[], Means]
    lost_gpus: Callable[[], tuple[str, ...]]
    private_network: Callable[[], None]


@dataclass(frozen=True)
class Facts:
    """One machine, and one lab on it if there is one.

    `network` holds the variables that every tool of ours gets (proxies, certificates); `index` and `registry` are the
    addresses in use. `packages` are the names that the stack asks for, `architectures` and `pythons` where it runs.
    `libc` is as confstr(3) says it ("glibc 2.36"; empty where it is not glibc), `installed` and `now` are seconds since
    the epoch. `lacks_environment` and `lacks_tools` say what has yet to be downloaded, `needs_engine` whether tasks of
    the lab are containers. `system` is where /proc, /sys, /dev, /etc and /var are.
    """

    settings: Settings
    machine: MachinePaths
    lab: LabPaths | None
    network: Mapping[str, str]
    index: str
    registry: str
    packages: frozenset[str]
    architectures: tuple[str, ...]
    pythons: tuple[str, ...]
    architecture: str
    libc: str
    uid: int
    now: float
    installed: float
    temporary: Path
    lacks_environment: bool
    lacks_tools: bool
    needs_engine: bool
    probes: Probes = field(repr=False)
    system: Path = Path("/")

    def read(self, path: str) -> str:
        """A file of the system, as "proc/meminfo"; empty where there is none, or none that we may read."""
        try:
            return (self.system / path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""


def matching(folder: Path, pattern: str) -> list[Path]:
    """What is in `folder`, sorted; nothing where we may not look."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []
