"""When a workspace in which nobody works gives its GPUs to a job that waits, and has them back: a pure function.

A job that waits for GPUs which only such workspaces hold has them told; when the notice has passed, and still nobody
works there, they are taken. When no job waits for GPUs any more, what is free goes back to who had given it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ailab.jobs.scheduling import yields
from ailab.resources import ledger
from ailab.resources.ledger import WHOLE, Capacity, Lease, Need


@dataclass(frozen=True)
class Holder:
    """A workspace that holds GPUs of its own, or should: `wants` of them, of those in `may_have` (None: of all).

    `idle` is for how many seconds nobody has worked there, 0 where somebody does or nothing is known; `told` since when
    it has notice, by the same clock as `now`, None where it has none.
    """

    task: str
    wants: int
    idle: float = 0.0
    told: float | None = None
    may_have: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Moves:
    """What to do: whom to `tell` that it will lose its GPUs, from whom to `withdraw` that again, from whom to `take`
    them now, and what to `give` back to whom."""

    tell: tuple[str, ...] = ()
    withdraw: tuple[str, ...] = ()
    take: tuple[str, ...] = ()
    give: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def moves(
    now: float,
    capacity: Capacity,
    leases: Sequence[Lease],
    needs: Sequence[Need],
    holders: Sequence[Holder],
    *,
    idle_seconds: float,
    notice_seconds: float,
) -> Moves:
    """`needs` are those of the job that is next in turn of those that wait for GPUs; empty where none does. Whoever has
    been idle for less than `idle_seconds` is left alone."""
    idle = {holder.task: holder.idle for holder in holders if holder.idle >= idle_seconds}
    told = {holder.task: holder.told for holder in holders if holder.told is not None}
    if not needs:
        return Moves(withdraw=tuple(told), give=_returns(capacity, leases, holders, idle))
    # Who has worked since has come back, though nobody may work there now.
    back = [task for task in told if idle.get(task, 0.0) < now - told[task]]
    asked = yields(capacity, leases, needs, {task: seconds for task, seconds in idle.items() if task not in back})
    due = [task for task in asked if task in told and now - told[task] >= notice_seconds]
    return Moves(
        tell=tuple(task for task in asked if task not in told),
        withdraw=tuple(task for task in told if task not in asked),
        # All of them or none: one alone would be taken in vain, should somebody come back to another meanwhile.
        take=tuple(asked) if len(due) == len(asked) else (),
    )


def free_gpus(
    capacity: Capacity, leases: Sequence[Lease], count: int, may_have: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The first `count` GPUs that nobody holds a part of, or as many as there are."""
    left = ledger.room(capacity, leases).gpus
    whole = [gpu for gpu, part in left.items() if part == WHOLE and (may_have is None or gpu in may_have)]
    return tuple(whole[:count])


def _returns(
    capacity: Capacity, leases: Sequence[Lease], holders: Sequence[Holder], idle: Mapping[str, float]
) -> dict[str, tuple[str, ...]]:
    """What each idle holder that lacks GPUs would have then. Who has worked there last has theirs first."""
    held = {lease.task: lease for lease in leases}
    found: dict[str, tuple[str, ...]] = {}
    for holder in sorted(holders, key=lambda one: one.idle):
        lease = held.get(holder.task)
        if lease is None or holder.task not in idle or len(lease.gpus) >= holder.wants:
            continue
        more = free_gpus(capacity, list(held.values()), holder.wants - len(lease.gpus), holder.may_have)
        if more:
            found[holder.task] = (*(gpu for gpu, _share in lease.gpus), *more)
            held[holder.task] = replace(lease, gpus=tuple((gpu, 1.0) for gpu in found[holder.task]))
    return found
