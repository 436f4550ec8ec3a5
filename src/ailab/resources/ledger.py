"""Who holds which CPUs, memory and GPUs, and whether something more fits: pure functions over plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from ailab.errors import UsageError
from ailab.i18n import _
from ailab.settings import GIB

# Parts of GPUs are added and compared as whole thousandths: ten floats of 0.1 are not 1.0, and a GPU that seems to have
# 1e-16 left, or taken, would never be wholly free again. Rounded down, as many fit as should: seven of a seventh.
WHOLE = 1000

# Each GPU's id and the fraction of its memory, 1.0 for a whole one.
Shares = tuple[tuple[str, float], ...]


class Lack(StrEnum):
    """What something has too little of to fit; where it is several, the first of these."""

    cpus = "cpus"
    memory = "memory"
    gpus = "gpus"


@dataclass(frozen=True)
class Gpu:
    """A GPU by its number or id, as the driver names it; memory in bytes."""

    id: str
    memory_bytes: int


@dataclass(frozen=True)
class Capacity:
    """All that there is to hold: a count of CPUs, bytes of memory, GPUs in the order in which they are given out."""

    cpus: int
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class Need:
    """What one task asks for: a count of CPUs, bytes of memory (0: what is fair, see `sized`), and either a count of
    whole `gpus` or `gpu_fraction`, a part of one GPU's memory (0 to 1)."""

    cpus: int = 1
    memory_bytes: int = 0
    gpus: int = 0
    gpu_fraction: float = 0.0


@dataclass(frozen=True)
class Lease:
    """What one task holds. Nothing of it is "what is fair" any more: a lease says how much."""

    task: str
    owner: str
    cpus: int
    memory_bytes: int
    gpus: Shares = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_json` gave, from this ailab or another: a field that is not known is passed over."""
        gpus = tuple((str(gpu), float(fraction)) for gpu, fraction in data.get("gpus", ()))
        return cls(str(data["task"]), str(data["owner"]), int(data["cpus"]), int(data["memory_bytes"]), gpus)


@dataclass(frozen=True)
class Room:
    """What nobody holds: a count of CPUs, bytes of memory, and of each GPU the thousandths."""

    cpus: int
    memory_bytes: int
    gpus: Mapping[str, int]


def parts(fraction: float) -> int:
    """A fraction of a GPU as thousandths, rounded down; what is more than nothing is at least one."""
    # 0.57 * 1000 is 569.9999999999999.
    return max(1, int(fraction * WHOLE + 1e-6)) if fraction else 0


def sized(capacity: Capacity, need: Need) -> Need:
    """The need in full: without an amount of memory of its own it has the part that goes with its CPUs, rounded down so
    that as many as have a CPU have memory; a GPU's fraction is in thousandths."""
    fair = capacity.memory_bytes * need.cpus // max(1, capacity.cpus)
    return Need(need.cpus, need.memory_bytes or fair, need.gpus, parts(need.gpu_fraction) / WHOLE)


def lease(capacity: Capacity, task: str, owner: str, need: Need, shares: Shares) -> Lease:
    """What `task` holds when it is given those GPUs."""
    full = sized(capacity, need)
    return Lease(task, owner, full.cpus, full.memory_bytes, shares)


def room(capacity: Capacity, leases: Iterable[Lease]) -> Room:
    """What is left. Never less than nothing, though the machine may have lost what is held; a GPU that is held and gone
    is passed over."""
    cpus, memory = capacity.cpus, capacity.memory_bytes
    gpus = {gpu.id: WHOLE for gpu in capacity.gpus}
    for held in leases:
        cpus -= held.cpus
        memory -= held.memory_bytes
        for gpu, fraction in held.gpus:
            if gpu in gpus:
                gpus[gpu] -= parts(fraction)
    return Room(max(0, cpus), max(0, memory), {gpu: max(0, left) for gpu, left in gpus.items()})


def without(there: Room, needs: Sequence[Need], shares: Iterable[Shares]) -> Room:
    """What is left of `there` when those (sized) needs hold those GPUs: never less than nothing."""
    gpus = dict(there.gpus)
    for gpu, fraction in (share for one in shares for share in one):
        gpus[gpu] = max(0, gpus[gpu] - parts(fraction))
    cpus = there.cpus - sum(need.cpus for need in needs)
    memory = there.memory_bytes - sum(need.memory_bytes for need in needs)
    return Room(max(0, cpus), max(0, memory), gpus)


def place(there: Room, needs: Sequence[Need]) -> list[Shares] | None:
    """The GPUs of each of those (sized) needs, if all fit at once; None if not."""
    return None if _lacks_cpus_or_memory(there, needs) else place_gpus(there, needs)


def lack(there: Room, needs: Sequence[Need]) -> Lack | None:
    """What there is too little of for those (sized) needs at once; None where all fit."""
    return _lacks_cpus_or_memory(there, needs) or (Lack.gpus if place_gpus(there, needs) is None else None)


def _lacks_cpus_or_memory(there: Room, needs: Sequence[Need]) -> Lack | None:
    if sum(need.cpus for need in needs) > there.cpus:
        return Lack.cpus
    return Lack.memory if sum(need.memory_bytes for need in needs) > there.memory_bytes else None


def place_gpus(there: Room, needs: Sequence[Need]) -> list[Shares] | None:
    """As `place`, of GPUs alone. The largest need chooses first: that wastes least of what is shared."""
    left = dict(there.gpus)
    found: list[Shares] = [()] * len(needs)
    for index in sorted(range(len(needs)), key=lambda at: (needs[at].gpus, needs[at].gpu_fraction), reverse=True):
        taken = _choose(left, needs[index])
        if taken is None:
            return None
        for gpu, part in taken:
            left[gpu] -= part
        found[index] = tuple((gpu, part / WHOLE) for gpu, part in taken)
    return found


def _choose(left: Mapping[str, int], need: Need) -> list[tuple[str, int]] | None:
    """Whole GPUs are the first ones that are wholly free. A part is taken where the least is left that suffices, which
    is a shared GPU before a free one: so as many as can be stay whole."""
    if not need.gpus and not need.gpu_fraction:
        return []
    whole = [gpu for gpu, part in left.items() if part == WHOLE][: need.gpus]
    if len(whole) < need.gpus:
        return None
    taken = [(gpu, WHOLE) for gpu in whole]
    if part := parts(need.gpu_fraction):
        enough = [gpu for gpu, there in left.items() if there >= part and gpu not in whole]
        if not enough:
            return None
        taken.append((min(enough, key=lambda gpu: left[gpu]), part))
    return taken


def fit(capacity: Capacity, leases: Iterable[Lease], need: Need) -> Shares | None:
    """The GPUs that the need would get now (empty where it asks for none); None where it does not fit."""
    found = fit_all(capacity, leases, (need,))
    return None if found is None else found[0]


def fit_all(capacity: Capacity, leases: Iterable[Lease], needs: Sequence[Need]) -> list[Shares] | None:
    """As `fit`, for the members of a gang: all of them or none."""
    return place(room(capacity, leases), [sized(capacity, need) for need in needs])


def refuse_never(capacity: Capacity, *needs: Need) -> None:
    """Raise `UsageError` for what would not fit, all at once, if nobody held anything: it would wait for ever."""
    for need in needs:
        _refuse_nonsense(need)
    empty, full = room(capacity, ()), [sized(capacity, need) for need in needs]
    if place(empty, full) is not None:
        return
    members = max(count for count in range(len(full)) if place(empty, full[:count]) is not None)
    asked = full if members else full[:1]
    message, remedy = _TOLD[lack(empty, asked) or Lack.gpus](capacity, asked)
    if members:
        remedy = _("Ask for fewer workers: --workers {most}").format(most=members)
    raise UsageError(message, remedy=remedy)


def _refuse_nonsense(need: Need) -> None:
    if need.cpus < 1:
        message = _("A task needs at least one CPU, not {asked}.").format(asked=need.cpus)
        raise UsageError(message, remedy=_("One CPU: --cpus 1"))
    if need.memory_bytes < 0 or need.gpus < 0:
        raise UsageError(_("Nobody can have less than nothing."), remedy=_("Ask for 0 or more, or leave it away."))
    if not 0 <= need.gpu_fraction <= 1:
        message = _("A part of a GPU is between 0 and 1, not {asked}.").format(asked=need.gpu_fraction)
        raise UsageError(message, remedy=_("Half of one GPU is 0.5; two whole ones: --gpus 2"))
    if need.gpus and need.gpu_fraction:
        message = _("Whole GPUs and a part of one cannot be had together.")
        raise UsageError(message, remedy=_("Ask for one of the two."))


def _cpus_told(capacity: Capacity, needs: Sequence[Need]) -> tuple[str, str]:
    message = _("This asks for {asked} CPUs at once, and this machine has {there}.")
    return (
        message.format(asked=sum(need.cpus for need in needs), there=capacity.cpus),
        _("Ask for what there is: --cpus {most}").format(most=capacity.cpus),
    )


def _memory_told(capacity: Capacity, needs: Sequence[Need]) -> tuple[str, str]:
    # Up and down, so that the two are never told as the same.
    asked = _size(sum(need.memory_bytes for need in needs), up=True)
    there = _size(capacity.memory_bytes, up=False)
    message = _("This asks for {asked} of memory at once, and this machine has {there}.")
    return (
        message.format(asked=asked, there=there),
        _("Ask for what there is: --memory {most}").format(most=there),
    )


def _gpus_told(capacity: Capacity, needs: Sequence[Need]) -> tuple[str, str]:
    there = len(capacity.gpus)
    each = [need.gpus + need.gpu_fraction for need in needs]
    # Parts that do not fit may add up to no more than there is.
    asked = f"{sum(each):g}" if sum(each) > there else " + ".join(f"{one:g}" for one in each)
    if not there:
        return (
            _("This asks for GPUs ({asked}), and there is none here that the lab may use.").format(asked=asked),
            _("See why: ailab doctor. On the CPU: the same without --gpus."),
        )
    return (
        _("This asks for {asked} GPUs at once, and this machine has {there}.").format(asked=asked, there=there),
        _("Ask for what there is: --gpus {most}").format(most=there),
    )


_TOLD = {Lack.cpus: _cpus_told, Lack.memory: _memory_told, Lack.gpus: _gpus_told}


def _size(count: int, *, up: bool) -> str:
    """Bytes as a person types them, "7.7g" or "512m", rounded up or down to a tenth."""
    unit, letter = (GIB, "g") if count >= GIB else (1024**2, "m")
    tenths = count * 10 // unit if not up else -(-count * 10 // unit)
    return f"{tenths // 10}{letter}" if tenths % 10 == 0 else f"{tenths / 10:.1f}{letter}"
