"""What a job is: what was asked for, in which state it is, and why it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from ailab.runtimes.base import Stored, check_words


class JobState(StrEnum):
    """`queued`: waits for its turn, its time or another job. `starting`: has its leases, its task is being started.
    The last three are ends: `done` with exit status 0, `stopped` by a person, `failed` for every other reason."""

    queued = "queued"
    starting = "starting"
    running = "running"
    done = "done"
    failed = "failed"
    stopped = "stopped"


LIVE = (JobState.queued, JobState.starting, JobState.running)
# With leases: a task of theirs may run.
HOLDING = (JobState.starting, JobState.running)
ENDED = (JobState.done, JobState.failed, JobState.stopped)


class EndReason(StrEnum):
    """Why a job ended that did not end by itself with status 0; a runtime's own reasons have the same names."""

    exit_status = "exit-status"
    out_of_memory = "out-of-memory"
    gpus_lost = "gpus-lost"
    timeout = "timeout"
    stopped = "stopped"
    lost = "lost"
    cannot_start = "cannot-start"
    never = "never"  # what it comes after has ended as it should not have


@dataclass(frozen=True)
class After(Stored):
    """Another job that has to end first: `ok`, done; `any`, in whatever way."""

    job: int
    on: str = "ok"

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Raises ValueError for a condition that this ailab does not know."""
        after = super().from_json(data)
        if not isinstance(after.job, int) or after.on not in ("ok", "any"):
            raise ValueError(f"after {after.job!r}: {after.on!r}")
        return after


@dataclass(frozen=True)
class JobRequest(Stored):
    """What a person asks to run. Kept as JSON in the job's row.

    `cwd` is the folder on this machine in which the command runs. `variables` are added to the environment and may
    hold secrets: they are never shown. `cpus` is a count, `memory_bytes` the most memory (0: what is fair, see
    `resources.ledger`), `gpus` a count of whole GPUs, `gpu_fraction` a part of one GPU's memory instead (0 to 1).
    `priority` is higher for what is more urgent. `retries` counts the starts after the first that failed in a way that
    another start can help. `timeout` (0: none) and `grace`, between TERM and KILL, are seconds. `resume`: after a
    reboot or a lost task it is started again, and finds its checkpoints. `not_before` is seconds since the epoch.
    `workers` train together as `strategy` says (`jobs.gangs`), and what is asked for is each one's; `insecure_ports`
    leaves the ports at which they meet open to others. `code` is the snapshot whose files it runs, and `generation` the
    environment that it runs in, for a job that repeats another."""

    command: tuple[str, ...]
    cwd: str
    name: str = ""
    variables: dict[str, str] = field(default_factory=dict, repr=False)
    cpus: int = 1
    memory_bytes: int = 0
    gpus: int = 0
    gpu_fraction: float = 0.0
    priority: int = 0
    after: tuple[After, ...] = ()
    retries: int = 0
    timeout: float = 0.0
    grace: float = 30.0
    resume: bool = False
    not_before: float = 0.0
    seed: int | None = None
    inputs: tuple[str, ...] = ()
    workers: int = 1
    strategy: str = ""
    insecure_ports: bool = False
    code: str = ""
    generation: str = ""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        after = [After.from_json(one) if isinstance(one, dict) else one for one in data.get("after", ())]
        request = super().from_json({**data, "after": after})
        check_words("command", request.command)
        if not isinstance(request.cwd, str) or not all(isinstance(one, After) for one in request.after):
            raise TypeError("cwd or after")
        return request
