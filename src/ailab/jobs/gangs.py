"""The tasks of a job: their roles and needs, how they find each other, and which one's end is the job's.

A job is one task, or a gang of several that are started together and end together. `Strategy` says how they train.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from ailab.resources.ledger import Need
from ailab.runtimes.base import Seen, TaskState

# Why all of a gang are stopped when nobody has asked for it: one has failed, or the chief is done. No user's name.
OVER = "(over)"
# The id of a job's task, as `members` makes it.
_TASK = re.compile(r"job-(\d+)(?:-(\d+))?")
# A member that has not been started, and need not be any more.
NOT_BEGUN = Seen(TaskState.exited, reason="stopped")


class Strategy(StrEnum):
    """How the workers of a job train together. `mirrored`: one process with a device for each worker. `multiworker`: a
    process for each, which TensorFlow's collectives connect. `ps`: a chief that hands out steps to workers, and a
    server that has the variables. `horovod`: a process for each, which Horovod's Gloo connects."""

    mirrored = "mirrored"
    multiworker = "multiworker"
    ps = "ps"
    horovod = "horovod"


class Network(StrEnum):
    """Where the tasks of a gang reach each other. `private`: nobody else reaches it, and it leads nowhere. `open`: that
    of other tasks, where others may reach the ports as well."""

    private = "private"
    open = "open"


class Role(StrEnum):
    """What a member does, as TensorFlow's TF_CONFIG calls it."""

    chief = "chief"
    worker = "worker"
    ps = "ps"


@dataclass(frozen=True)
class Member:
    """A task of a job: its number among all of them, and its number within its role, both from 0."""

    number: int
    role: Role
    index: int
    task: str

    @property
    def name(self) -> str:
        """What people call it: `chief`, `worker 1`, `ps 0`."""
        return str(self.role) if self.role == Role.chief else f"{self.role} {self.index}"


def check_strategy(strategy: object, workers: object) -> None:
    """Raises ValueError for what this ailab does not know."""
    if strategy != "":
        Strategy(str(strategy))
    if not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers: {workers!r}")


def task_prefix(job: int) -> str:
    return f"job-{job}"


def members(job: int, strategy: str = "", workers: int = 1) -> tuple[Member, ...]:
    """The tasks that a job is run as. The first is the one that tells of the job: its progress, with `ps` its end."""
    roles = [(Role.worker, index) for index in range(workers)]
    if strategy == Strategy.mirrored:
        roles = roles[:1]
    elif strategy == Strategy.ps:
        roles = [(Role.chief, 0), *roles, (Role.ps, 0)]
    one = task_prefix(job)
    return tuple(
        Member(number, role, index, one if len(roles) == 1 else f"{one}-{number}")
        for number, (role, index) in enumerate(roles)
    )


def network(strategy: str, insecure_ports: bool) -> Network | None:
    """The network of a gang that trains so; None where its tasks do not connect to each other."""
    if strategy in ("", Strategy.mirrored):
        return None
    return Network.open if insecure_ports else Network.private


def tasks_among(ids: Iterable[str], job: int) -> list[str]:
    """The tasks of a job among those ids, in the order of its members."""
    return tasks_by_job(ids).get(job, [])


def tasks_by_job(ids: Iterable[str]) -> dict[int, list[str]]:
    """The tasks of jobs among those ids by the job's number, each in the order of its members."""
    found: dict[int, list[tuple[int, str]]] = {}
    for match in filter(None, map(_TASK.fullmatch, ids)):
        found.setdefault(int(match[1]), []).append((int(match[2] or 0), match[0]))
    return {job: [task for _number, task in sorted(tasks)] for job, tasks in found.items()}


def needs(strategy: str, workers: int, each: Need) -> tuple[Need, ...]:
    """What each of `members` needs, where a worker needs `each`. The chief and the server of `ps` wait most of the
    time: they need no CPU and no GPU of their own."""
    if strategy == Strategy.mirrored:
        return (Need(each.cpus * workers, each.memory_bytes * workers, each.gpus * workers, each.gpu_fraction),)
    beside = replace(each, cpus=0, gpus=0, gpu_fraction=0.0)
    return (beside, *(each,) * workers, beside) if strategy == Strategy.ps else (each,) * workers


def variables(strategy: str, workers: int, gang: Sequence[Member], number: int, hosts: Sequence[str]) -> dict[str, str]:
    """What the member `number` is told of the others. `hosts` has for each where it is to listen, as host:port."""
    found = {"AILAB_WORKER": str(number), "AILAB_WORKERS": str(workers)}
    if strategy in (Strategy.multiworker, Strategy.ps):
        found["TF_CONFIG"] = _tf_config(gang, number, hosts)
    return found | (_horovod(number, hosts) if strategy == Strategy.horovod else {})


def _tf_config(gang: Sequence[Member], number: int, hosts: Sequence[str]) -> str:
    """https://www.tensorflow.org/guide/distributed_training#setting_up_the_tf_config_environment_variable"""
    cluster: dict[str, list[str]] = {}
    for member, host in zip(gang, hosts, strict=True):
        cluster.setdefault(str(member.role), []).append(host)
    mine = gang[number]
    return json.dumps({"cluster": cluster, "task": {"type": str(mine.role), "index": mine.index}})


def _horovod(number: int, hosts: Sequence[str]) -> dict[str, str]:
    """What `horovodrun --gloo` tells its processes (horovod/runner/gloo_run.py of Horovod 0.28, create_slot_env_vars
    and create_run_env_vars). Each worker is told that it has a host for itself: it sees no GPUs but its own, so the
    usual `gpus[hvd.local_rank()]` has to be the first. The place where they meet is beside the first worker."""
    size, (host, _colon, port) = str(len(hosts)), hosts[0].rpartition(":")
    found = {"RANK": str(number), "SIZE": size, "LOCAL_RANK": "0", "LOCAL_SIZE": "1"}
    found |= {"CROSS_RANK": str(number), "CROSS_SIZE": size, "HOSTNAME": f"worker-{number}"}
    found |= {"CONTROLLER": "gloo", "CPU_OPERATIONS": "gloo", "GLOO_TIMEOUT_SECONDS": "120"}
    found |= {"GLOO_RENDEZVOUS_ADDR": host, "GLOO_RENDEZVOUS_PORT": port}
    if host == "127.0.0.1":
        found |= {"GLOO_IFACE": "lo"}
    return {f"HOROVOD_{name}": value for name, value in found.items()}


def of_attempt(seen: Seen, attempt: int) -> Seen:
    """A task as it is of that attempt of its job: absent where it has not been run in it yet. One of which not so much
    as a start is known was interrupted on its way, with whoever started it."""
    interrupted = seen.started_at is None and (seen.reason or "").startswith("cannot-start")
    if seen.state == TaskState.exited and (seen.attempt < attempt or interrupted):
        return Seen(TaskState.absent)
    return seen


def is_over(strategy: str, seen: Sequence[Seen]) -> bool:
    """Whether a gang of which some still run is to end: one has failed, or the chief, which decides, is done."""
    failed = any(one.state == TaskState.exited and not _is_done(one) for one in seen)
    return failed or (strategy == Strategy.ps and _is_done(seen[0]))


def telling(strategy: str, asked: str, seen: Sequence[Seen]) -> int:
    """The number of the member whose end is the job's; all have ended. `asked` is why they were stopped.

    It is the first that failed. Those that were stopped after it, or died of its absence, say nothing; but where some
    were stopped and we had no reason to, somebody has brought down the lab, and others died of that.
    """
    bad = [number for number, one in enumerate(seen) if not _is_done(one)]
    if not bad or (strategy == Strategy.ps and _is_done(seen[0])):
        return 0
    never_began = [number for number in bad if seen[number] == NOT_BEGUN]
    stopped = [number for number in bad if seen[number].reason == "stopped" and number not in never_began]
    failed = [number for number in bad if number not in stopped and number not in never_began]
    candidates = (failed or stopped if asked == OVER else stopped or failed) or never_began
    return min(candidates, key=lambda number: _moment(seen[number].ended_at))


def _moment(at: str | None) -> float:
    return datetime.fromisoformat(at).timestamp() if at else 0.0


def _is_done(seen: Seen) -> bool:
    return seen.state == TaskState.exited and seen.exit_status == 0 and not seen.reason


def span(seen: Sequence[Seen]) -> tuple[str | None, str | None]:
    """When the first of them began, and the last ended."""
    begun = [one.started_at for one in seen if one.started_at]
    ended = [one.ended_at for one in seen if one.ended_at]
    return min(begun, key=_moment, default=None), max(ended, key=_moment, default=None)
