"""Whose turn it is: which of the jobs that wait start now, and on which GPUs; a pure function over plain data.

Owners come first: who has used least of the machine is next, where use fades (`decayed`) and is the dominant share of
the machine over time (`charge`). The source of the dominant share: Ghodsi et al., "Dominant Resource Fairness: Fair
Allocation of Multiple Resource Types", NSDI 2011. Within an owner it is priority, then age. What does not fit is passed
over for what comes after it (backfill), until it has waited for `PATIENCE`: then all that it needs is kept for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush, heapreplace
from operator import attrgetter

from ailab.resources import ledger
from ailab.resources.ledger import Capacity, Lack, Lease, Need, Room, Shares

# Seconds. As long may small jobs overtake one that is next in turn; then room is kept for it.
PATIENCE = 600.0
# Seconds. A day: who had the machine for a night is behind in the morning; of that a quarter is left two days later.
HALF_LIFE = 86400.0
# Seconds. Use is charged as time passes, so what was only just given would not count. It counts as though it were held
# for ten minutes more: else an owner without any use would be given the whole machine in one plan.
HELD = 600.0
# Why a job waits that would fit: room is kept for another, whose turn comes first.
TURN = "turn"

# Priority turned round, submission, job.
Order = tuple[int, float, int]
_amounts = attrgetter("cpus", "memory_bytes", "gpus", "gpu_fraction")


@dataclass(frozen=True)
class Waiting:
    """A job that may start now. `needs` has one for each task: several are a gang, which starts whole or not at all.
    `submitted_at`, in seconds since the epoch, is since when it could have started if there had been room."""

    job: int
    owner: str
    needs: tuple[Need, ...]
    priority: int = 0
    submitted_at: float = 0.0
    # Made once and not in every plan: its place in its owner's order (less is sooner), and what jobs with equal needs
    # have in common, as a text: the hash of a text is kept.
    order: Order = field(init=False, repr=False, compare=False)
    kind: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", (-self.priority, self.submitted_at, self.job))
        object.__setattr__(self, "kind", repr([_amounts(need) for need in self.needs]))


@dataclass(frozen=True)
class Start:
    """A job to start: its needs in full (see `ledger.sized`), and the GPUs of each of its tasks."""

    job: int
    owner: str
    needs: tuple[Need, ...]
    gpus: tuple[Shares, ...]


@dataclass(frozen=True)
class Plan:
    """What to start, in this order, and for each job that goes on waiting what it waits for: `cpus`, `memory`, `gpus`
    or `turn`. `wants_gpus` is the first in turn of those that wait for GPUs and will fit once enough are free."""

    starts: tuple[Start, ...] = ()
    blocked: Mapping[int, str] = field(default_factory=dict)
    wants_gpus: int | None = None


@dataclass(eq=False)
class _Kind:
    """All jobs with equal needs, by owner. Room only shrinks within a plan, so once one of them does not fit, none of
    them will: thousands of jobs are a few kinds, and only kinds are ever tried."""

    needs: tuple[Need, ...]
    queues: dict[str, list[Order]] = field(default_factory=dict)
    fits: bool = True

    def use(self, capacity: Capacity) -> float:
        """What an owner who is given one more of these is taken to use."""
        return sum(_share_of(capacity, need) for need in self.needs) * HELD

    def ever_fits(self, capacity: Capacity) -> bool:
        return ledger.fit_all(capacity, (), self.needs) is not None


def decide(
    now: float,
    capacity: Capacity,
    leases: Sequence[Lease],
    waiting: Iterable[Waiting],
    usage: Mapping[str, float],
) -> Plan:
    """What to start at `now` (seconds since the epoch) of jobs that all may start, beside what holds `leases`.

    `usage` is each owner's use as `charge` counts and `decayed` fades it; who is not in it has none. A job that not
    even the empty machine could run waits, and nothing is kept for it.
    """
    kinds = _kinds(capacity, waiting)
    queues = _queues(kinds)
    turns = _turns(capacity, leases, queues, usage)
    # What nobody holds, and what of it may be given: less, once room is kept for somebody.
    left = offered = ledger.room(capacity, leases)
    kept = False
    starts: list[Start] = []
    passed: list[tuple[int, _Kind]] = []
    while turns:
        used, _since, owner = heappop(turns)
        queue = queues[owner]
        while queue:
            (_rank, since, job), kind = queue[0]
            placed = ledger.place(offered, kind.needs) if kind.fits else None
            if placed is not None:
                starts.append(Start(job, owner, kind.needs, tuple(placed)))
                left = ledger.without(left, kind.needs, placed)
                offered = ledger.without(offered, kind.needs, placed)
                _step(queue, kind.queues[owner], kind)
                if queue:
                    heappush(turns, (used + kind.use(capacity), queue[0][0][1], owner))
                break
            kind.fits = False
            passed.append((job, kind))
            if not kept and now - since > PATIENCE and kind.ever_fits(capacity):
                offered, kept = _keep(offered, kind.needs), True
            heappop(queue)
    reasons = {kind: ledger.lack(left, kind.needs) or TURN for kind in kinds}
    return Plan(
        tuple(starts),
        {entry[2]: str(reasons[kind]) for kind in kinds for entries in kind.queues.values() for entry in entries},
        next((job for job, kind in passed if reasons[kind] == Lack.gpus and kind.ever_fits(capacity)), None),
    )


def _kinds(capacity: Capacity, waiting: Iterable[Waiting]) -> list[_Kind]:
    kinds: dict[str, _Kind] = {}
    for job in waiting:
        kind = kinds.get(job.kind)
        if kind is None:
            kind = kinds[job.kind] = _Kind(tuple(ledger.sized(capacity, need) for need in job.needs))
        queue = kind.queues.get(job.owner)
        if queue is None:
            kind.queues[job.owner] = [job.order]
        else:
            queue.append(job.order)
    return list(kinds.values())


def _queues(kinds: Iterable[_Kind]) -> dict[str, list[tuple[Order, _Kind]]]:
    """Each owner's next job of each kind, as a heap."""
    queues: dict[str, list[tuple[Order, _Kind]]] = {}
    for kind in kinds:
        for owner, entries in kind.queues.items():
            heapify(entries)
            queues.setdefault(owner, []).append((entries[0], kind))
    for queue in queues.values():
        heapify(queue)
    return queues


def _turns(
    capacity: Capacity,
    leases: Iterable[Lease],
    queues: Mapping[str, list[tuple[Order, _Kind]]],
    usage: Mapping[str, float],
) -> list[tuple[float, float, str]]:
    """The owners by use, as a heap; of two that have used the same, whose next job is older."""
    used = {owner: usage.get(owner, 0.0) for owner in queues}
    for lease in leases:
        if lease.owner in used:
            used[lease.owner] += charge(lease, capacity, HELD)
    turns = [(use, queues[owner][0][0][1], owner) for owner, use in used.items()]
    heapify(turns)
    return turns


def _step(queue: list[tuple[Order, _Kind]], entries: list[Order], kind: _Kind) -> None:
    """Take the first job, of that kind, from an owner's queue."""
    heappop(entries)
    if entries:
        heapreplace(queue, (entries[0], kind))
    else:
        heappop(queue)


def _keep(offered: Room, needs: Sequence[Need]) -> Room:
    """What is left for others while room is kept: of what suffices the rest, of what does not suffice nothing.

    Not only what is lacking is kept: what sufficed today would be given away, and be what is lacking tomorrow.
    """
    placed = ledger.place_gpus(offered, needs)
    if placed is None:
        # Which of the GPUs will be free first is not known.
        offered = replace(offered, gpus=dict.fromkeys(offered.gpus, 0))
    return ledger.without(offered, needs, placed or ())


def yields(
    capacity: Capacity, leases: Sequence[Lease], needs: Sequence[Need], idle: Mapping[str, float]
) -> tuple[str, ...]:
    """Which tasks to ask to give back their GPUs so that `needs`, those of `Plan.wants_gpus`, could start.

    `leases` are all that are held, with the plan's starts; `idle` has for each task that may be asked the seconds for
    which it has done nothing. Who is idle longest is asked first, and nobody in vain: without any one of those named
    the job would not fit. Empty where it fits already, or would not fit even so.
    """
    full = [ledger.sized(capacity, need) for need in needs]

    def would_fit(asked: Iterable[str]) -> bool:
        named = set(asked)
        kept = [replace(lease, gpus=()) if lease.task in named else lease for lease in leases]
        return ledger.place(ledger.room(capacity, kept), full) is not None

    askable = [lease.task for lease in leases if lease.gpus and lease.task in idle]
    askable.sort(key=lambda task: idle[task], reverse=True)
    count = next((count for count in range(len(askable) + 1) if would_fit(askable[:count])), 0)
    asked = askable[:count]
    # The last one named has been idle for the shortest time: it is spared first, if it can be.
    for task in reversed(askable[:count]):
        if would_fit(fewer := [other for other in asked if other != task]):
            asked = fewer
    return tuple(asked)


def charge(lease: Lease, capacity: Capacity, seconds: float) -> float:
    """The use of holding a lease: the largest of its shares (of CPUs, of memory, of GPUs) of the machine, times
    seconds. The whole machine for an hour is 3600."""
    gpus = sum(fraction for _gpu, fraction in lease.gpus)
    return _dominant(capacity, lease.cpus, lease.memory_bytes, gpus) * seconds


def decayed(used: float, seconds: float, half_life: float = HALF_LIFE) -> float:
    """What is left of a use after `seconds`: half after a half-life. A clock that was set back changes nothing."""
    return float(used * 0.5 ** (max(0.0, seconds) / half_life))


def _share_of(capacity: Capacity, need: Need) -> float:
    return _dominant(capacity, need.cpus, need.memory_bytes, need.gpus + need.gpu_fraction)


def _dominant(capacity: Capacity, cpus: float, memory_bytes: float, gpus: float) -> float:
    amounts = (cpus, capacity.cpus), (memory_bytes, capacity.memory_bytes), (gpus, len(capacity.gpus))
    return max((held / there for held, there in amounts if there), default=0.0)
