"""The contract of a runtime, and the plain data that passes through it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ailab.command import Finished
from ailab.errors import AilabError
from ailab.paths import LabPaths

if TYPE_CHECKING:
    from ailab.runtimes.terminal import Terminal


class TaskKind(StrEnum):
    """What a task is to people. `extra`: a service without which the lab is ready all the same."""

    service = "service"
    extra = "extra"
    workspace = "workspace"
    job = "job"
    member = "member"
    endpoint = "endpoint"
    chore = "chore"


class TaskState(StrEnum):
    """`absent`: the runtime knows nothing of it. `starting`: asked for, no process seen yet. `unknown`: who runs it
    does not answer, so it may run or not."""

    absent = "absent"
    starting = "starting"
    running = "running"
    exited = "exited"
    unknown = "unknown"


class Capability(StrEnum):
    """What a runtime can do beyond the contract; read from the class, without an instance.

    `limits_tasks`: `memory_bytes` holds for a task as a whole, and the kernel kills what goes over it (`Seen.kills`);
    without it the limit is each process's own, which is refused more memory. It also means that `pids` and `shm_bytes`
    hold, which are nothing elsewhere. `images`: a task runs in an image, and sees of this machine what is mounted.
    """

    limits_tasks = "limits-tasks"
    images = "images"


def _check_kind(item: Field[Any], value: Any) -> None:
    default = item.default if item.default_factory is MISSING else item.default_factory()
    if default is None or default is MISSING:
        return
    kind: Any = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, str if isinstance(default, str) else kind):
        raise TypeError(f"{item.name} is {type(value).__name__}, not {type(default).__name__}")


class Stored:
    """Data that is kept as JSON. Reading is lenient: a field that an older or newer ailab wrote is passed over. A value
    of another kind than the field's default raises `TypeError`."""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        values: dict[str, Any] = {}
        for item in fields(cls):  # type: ignore[arg-type]  # subclasses are dataclasses
            if item.name not in data:
                continue
            value = data[item.name]
            values[item.name] = tuple(value) if isinstance(value, list) else value
            _check_kind(item, values[item.name])
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload,no-any-return]  # subclasses are dataclasses


def check_words(name: str, words: object) -> None:
    """Raises `TypeError` unless `words` are texts, at least one."""
    if not isinstance(words, tuple) or not words or not all(isinstance(word, str) for word in words):
        raise TypeError(f"{name} is no list of words")


@dataclass(frozen=True)
class Mount(Stored):
    """A folder or file of this machine that an isolated task sees at `target`. Without a `source` it is an empty folder
    in memory, which ends with the task."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class TaskSpec(Stored):
    """A command to run.

    `environment` is the command's whole environment and may hold secrets: it is kept in files of mode 0600 and never
    shown. `grace` is the seconds between TERM and KILL; `log_bytes` the size past which the log is rotated (one old one
    is kept). `cpus` (a count), `memory_bytes`, `shm_bytes` (of /dev/shm) and `pids` (processes and threads) are limits;
    0 is the runtime's own default. `gpus` are the numbers or ids of the GPUs that the task may use, as the driver names
    them; None leaves it to the runtime. `image` and `mounts` are for runtimes that can `images`. `restart` is for who
    keeps tasks running: whether one that has ended is to be started again. `attempt` is for who counts the starts: one
    that has had it is not started again; 0 is one more than the last. Tasks of one `gang` reach each other (`Site`).
    """

    id: str
    name: str
    kind: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    cwd: str
    ports: tuple[int | str, ...] = ()
    grace: float = 10.0
    log_bytes: int = 8 * 1024 * 1024
    cpus: int = 0
    memory_bytes: int = 0
    restart: bool = True
    shm_bytes: int = 0
    pids: int = 0
    gpus: tuple[str, ...] | None = None
    image: str = ""
    mounts: tuple[Mount, ...] = ()
    gang: str = ""
    open_ports: bool = False
    attempt: int = 0

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        mounts = [Mount.from_json(one) if isinstance(one, dict) else one for one in data.get("mounts", ())]
        spec = super().from_json({**data, "mounts": mounts})
        check_words("command", spec.command)
        TaskKind(spec.kind)
        if not isinstance(spec.id, str) or not isinstance(spec.environment, dict):
            raise TypeError("id or environment")
        return spec


@dataclass(frozen=True)
class Seen(Stored):
    """How a task is now. Times are ISO 8601 in UTC.

    `exit_status` is 128 + n after signal n. `reason` says why a task ended that did not end by itself: `stopped`,
    `cannot-start: ...`, `shim-killed`, `out-of-memory`, `lost` (the machine or the engine went down, or nothing can be
    known any more); of one that is `unknown`, why. `attempt` counts the starts from 1. `kills` counts the processes of
    this attempt that were killed because the task was over its memory limit. `before` is the `reason` for which the
    attempt before ended.
    """

    state: str
    pid: int | None = None
    account: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    exit_status: int | None = None
    reason: str | None = None
    attempt: int = 0
    kills: int = 0
    before: str | None = None


@dataclass(frozen=True)
class Usage(Stored):
    """What all processes of a task use: CPU seconds since they started, memory in bytes (shared pages counted once
    where the system tells), how many they are; the most memory so far where that is kept, else 0."""

    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    processes: int = 0
    memory_peak_bytes: int = 0


@dataclass(frozen=True)
class Limits(Stored):
    """The limits in force, read back from the kernel: how many CPUs' time, bytes of memory, processes and threads,
    bytes of /dev/shm. 0: none."""

    cpus: float = 0.0
    memory_bytes: int = 0
    pids: int = 0
    shm_bytes: int = 0


@dataclass(frozen=True)
class Site:
    """Where a task stands: what is where for it, which need not be where it is for us.

    `python` is one that has ailab; `lab` are the lab's files as the task sees them; it has to `listen` on that address
    for `Runtime.connect` to lead to it. `peers` is the host at which the others of its gang reach it on their private
    network, `open_peers` where they have none, {task} in the place of its id: at every port on which it listens on all
    addresses.
    """

    python: str
    lab: LabPaths
    listen: str
    peers: str
    open_peers: str
    capabilities: frozenset[Capability] = frozenset()


class Runtime(ABC):
    """Runs tasks that outlive the caller. What it returns is plain JSON-able data; ids are chosen by the caller."""

    name: ClassVar[str]
    capabilities: ClassVar[frozenset[Capability]] = frozenset()

    @abstractmethod
    def site(self, kind: str, lab: LabPaths) -> Site:
        """Where a task of that kind would stand, of a lab whose files are there for us."""

    @abstractmethod
    def no_private_network(self, kind: str) -> AilabError | None:
        """Why the tasks of a gang cannot have a private network, and what to do; None where they can. It is tried, in
        some milliseconds."""

    @abstractmethod
    def start(self, spec: TaskSpec) -> Seen:
        """Start a task. One that runs is returned as it is, whatever its spec, and so is one that has had the spec's
        `attempt`; else one that has ended is started again, as that or its next attempt. A command that cannot be run
        is not an error here: the task is `exited` with status 126 or 127 and a reason."""

    @abstractmethod
    def poll(self, task_id: str) -> Seen:
        """How the task is. Quick, never raises for an id it does not know (`absent`) or when who runs it does not
        answer (`unknown`), true after any crash of ours."""

    @abstractmethod
    def spec(self, task_id: str) -> TaskSpec | None:
        """What the task was last started with; None for an id that the runtime does not know."""

    @abstractmethod
    def stop(self, task_id: str, *, grace: float | None = None) -> Seen:
        """End a task and everything it started: TERM, after `grace` seconds KILL. Returns when nothing of it is left;
        a task that does not run is returned as it is."""

    @abstractmethod
    def logs(self, task_id: str, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        """The lines of the task's output, the last `tail` if given; with `follow`, goes on until the task has ended."""

    @abstractmethod
    def exec(self, task_id: str, argv: Sequence[str], *, timeout: float) -> Finished:
        """Run a command where the task runs: same account, environment and folder. Raises `NotFound` if it does not
        run."""

    @abstractmethod
    def terminal(self, task_id: str, argv: Sequence[str]) -> Terminal:
        """As `exec`, at a terminal, whose size is still to be set. Raises `NotFound` if the task does not run."""

    @abstractmethod
    def connect(self, task_id: str, port: int | str) -> str:
        """Where this machine reaches a port of the task, one of its spec's: `127.0.0.1:8000`; for a unix socket, whose
        path the spec has as the task sees it, the path here. It stays the same from attempt to attempt where that can
        be had. Raises `NotFound` if the task does not run."""

    @abstractmethod
    def usage(self, task_id: str) -> Usage:
        """What the task uses now; all zero for one that does not run."""

    @abstractmethod
    def limits(self, task_id: str) -> Limits:
        """The limits in force for a task that runs, by the kernel's own word; all zero for one that does not."""

    @abstractmethod
    def fault(self, task_id: str) -> str | None:
        """What a task that runs has lost and only a new attempt brings back: `gpus-lost`. None for one that has all
        that it was started with, that does not run, or of which nothing can be told. A look into the task, which may
        take seconds: not for every look at its state."""

    @abstractmethod
    def silence(self) -> str | None:
        """Why who runs the tasks does not answer now: they can be neither started nor stopped, and perhaps not be
        reached. None where there is nobody to ask, or who is there answers."""

    @abstractmethod
    def tasks(self) -> list[str]:
        """The ids that the runtime knows, running or ended."""

    @abstractmethod
    def remove(self, task_id: str) -> None:
        """Forget an ended task and its log. Raises `Conflict` while it runs."""
