"""The ledger: what fits where, that nothing is ever given twice, and what is refused at once."""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ailab.errors import UsageError
from ailab.resources.ledger import (
    Capacity,
    Gpu,
    Lack,
    Lease,
    Need,
    fit,
    fit_all,
    lack,
    lease,
    parts,
    refuse_never,
    sized,
)
from ailab.resources.ledger import room as free_room
from ailab.settings import GIB, parse_size

TWO_GPUS = Capacity(8, 32 * GIB, (Gpu("0", 16 * GIB), Gpu("1", 16 * GIB)))
NO_GPU = Capacity(8, 32 * GIB)


def held(*gpus: tuple[str, float], cpus: int = 1) -> Lease:
    return Lease("task", "ana", cpus, GIB, gpus)


def test_whole_gpus_are_those_that_nobody_shares() -> None:
    assert fit(TWO_GPUS, [], Need(gpus=1)) == (("0", 1.0),)
    assert fit(TWO_GPUS, [held(("0", 0.001))], Need(gpus=1)) == (("1", 1.0),)
    assert fit(TWO_GPUS, [held(("0", 0.001))], Need(gpus=2)) is None
    assert fit(TWO_GPUS, [], Need()) == ()


def test_a_part_goes_where_least_is_left_so_that_whole_ones_stay_whole() -> None:
    shared = [held(("1", 0.5))]
    assert fit(TWO_GPUS, shared, Need(gpu_fraction=0.5)) == (("1", 0.5),)
    assert fit(TWO_GPUS, shared, Need(gpu_fraction=0.6)) == (("0", 0.6),)
    assert fit(TWO_GPUS, [held(("0", 0.3)), held(("1", 0.6))], Need(gpu_fraction=0.4)) == (("1", 0.4),)
    assert fit(TWO_GPUS, [held(("0", 1.0), ("1", 0.9))], Need(gpu_fraction=0.2)) is None


@pytest.mark.parametrize("count", [3, 7, 10, 1000])
def test_equal_parts_fill_a_gpu_to_the_last(count: int) -> None:
    one = Capacity(count, count, (Gpu("0", GIB),))
    need = Need(gpu_fraction=1 / count)
    leases: list[Lease] = []
    for number in range(count):
        shares = fit(one, leases, need)
        assert shares is not None
        leases.append(lease(one, str(number), "ana", need, shares))
    assert fit(one, leases, Need(gpus=1)) is None
    assert sum(parts(share) for one_held in leases for _gpu, share in one_held.gpus) <= 1000
    assert fit(one, [], Need(gpus=1)) == (("0", 1.0),)


def test_memory_that_nobody_named_is_the_part_that_goes_with_the_cpus() -> None:
    assert sized(NO_GPU, Need(cpus=2)).memory_bytes == 8 * GIB
    assert sized(NO_GPU, Need(cpus=2, memory_bytes=5)).memory_bytes == 5
    odd = Capacity(3, 100)
    assert fit_all(odd, [], [Need()] * 3) is not None


def test_what_is_lacking_is_said() -> None:
    empty = free_room(TWO_GPUS, [])
    assert lack(empty, [Need(cpus=9)]) == Lack.cpus
    assert lack(empty, [Need(memory_bytes=33 * GIB)]) == Lack.memory
    assert lack(empty, [Need(gpus=3)]) == Lack.gpus
    assert lack(empty, [Need(cpus=8, memory_bytes=32 * GIB, gpus=2)]) is None


def test_a_gang_is_placed_whole_or_not() -> None:
    assert fit_all(TWO_GPUS, [], [Need(gpus=1)] * 2) == [(("0", 1.0),), (("1", 1.0),)]
    assert fit_all(TWO_GPUS, [], [Need(gpus=1)] * 3) is None
    assert fit_all(TWO_GPUS, [], [Need(cpus=5)] * 2) is None
    # In the order in which they stand, the second 0.6 would find no room.
    assert fit_all(TWO_GPUS, [], [Need(gpu_fraction=part) for part in (0.4, 0.4, 0.6, 0.6)]) is not None


def test_a_machine_that_lost_what_is_held_has_nothing_left_and_nothing_breaks() -> None:
    lost = Capacity(1, GIB, (Gpu("0", GIB),))
    left = free_room(lost, [held(("0", 1.0), ("1", 1.0), cpus=4)])
    assert (left.cpus, left.memory_bytes, dict(left.gpus)) == (0, 0, {"0": 0})


def test_a_lease_survives_a_restart_and_a_newer_ailab() -> None:
    before = held(("0", 0.333), ("GPU-1a", 1.0))
    data = json.loads(json.dumps({**before.to_json(), "later": 1}))
    assert Lease.from_json(data) == before


@pytest.mark.parametrize(
    ("capacity", "needs", "said", "remedy"),
    [
        (NO_GPU, [Need(cpus=9)], ("9 CPUs", "has 8"), "--cpus 8"),
        (Capacity(8, int(7.75 * GIB)), [Need(memory_bytes=8 * GIB)], ("8g", "7.7g"), "--memory 7.7g"),
        (Capacity(8, 100 * 2**20), [Need(memory_bytes=GIB)], ("1g", "100m"), "--memory 100m"),
        (TWO_GPUS, [Need(gpus=4)], ("4 GPUs", "has 2"), "--gpus 2"),
        (NO_GPU, [Need(gpus=1)], ("GPUs (1)", "none"), "ailab doctor"),
        (NO_GPU, [Need(gpu_fraction=0.5)], ("GPUs (0.5)", "none"), "without --gpus"),
        (NO_GPU, [Need(cpus=3)] * 4, ("12 CPUs", "has 8"), "--workers 2"),
        (TWO_GPUS, [Need(gpus=1)] * 3, ("3 GPUs", "has 2"), "--workers 2"),
        (TWO_GPUS, [Need(gpu_fraction=0.6)] * 3, ("0.6 + 0.6 + 0.6", "has 2"), "--workers 2"),
        (NO_GPU, [Need(cpus=9)] * 2, ("9 CPUs", "has 8"), "--cpus 8"),
        (NO_GPU, [Need(cpus=0)], ("at least one CPU",), "--cpus 1"),
        (NO_GPU, [Need(memory_bytes=-1)], ("less than nothing",), "0 or more"),
        (TWO_GPUS, [Need(gpu_fraction=1.5)], ("between 0 and 1", "1.5"), "0.5"),
        (TWO_GPUS, [Need(gpu_fraction=float("nan"))], ("between 0 and 1",), "0.5"),
        (TWO_GPUS, [Need(gpus=1, gpu_fraction=0.5)], ("together",), "one of the two"),
    ],
)
def test_what_can_never_fit_is_refused_with_what_there_is_and_what_would_do(
    capacity: Capacity, needs: list[Need], said: tuple[str, ...], remedy: str
) -> None:
    with pytest.raises(UsageError) as refusal:
        refuse_never(capacity, *needs)
    assert all(part in refusal.value.message for part in said), refusal.value.message
    assert remedy in refusal.value.remedy


def test_what_fits_the_empty_machine_is_not_refused() -> None:
    refuse_never(TWO_GPUS, Need(cpus=8, gpus=2))
    refuse_never(TWO_GPUS, *[Need(cpus=1, gpu_fraction=0.25)] * 8)


capacities = st.builds(
    Capacity,
    st.integers(1, 16),
    st.integers(1, 64 * GIB),
    st.integers(0, 4).map(lambda count: tuple(Gpu(str(number), GIB) for number in range(count))),
)
needs = st.builds(Need, st.integers(1, 6), st.integers(0, 8 * GIB), st.integers(0, 3)) | st.builds(
    Need, st.integers(1, 4), gpu_fraction=st.floats(0.0, 1.0)
)


@settings(max_examples=150, deadline=None)
@given(capacities, st.lists(st.lists(needs, min_size=1, max_size=4), max_size=12), st.randoms(use_true_random=False))
def test_nothing_is_given_twice(capacity: Capacity, gangs: list[list[Need]], random: Random) -> None:
    leases: list[Lease] = []
    for gang in gangs:
        placed = fit_all(capacity, leases, gang)
        if placed is None:
            if leases:
                leases.pop(random.randrange(len(leases)))
            continue
        for need, shares in zip(gang, placed, strict=True):
            assert [share for _gpu, share in shares].count(1.0) >= need.gpus
            assert len({gpu for gpu, _share in shares}) == len(shares) == need.gpus + bool(need.gpu_fraction)
            leases.append(lease(capacity, "task", "ana", need, shares))
        assert sum(one.cpus for one in leases) <= capacity.cpus
        assert sum(one.memory_bytes for one in leases) <= capacity.memory_bytes
        for gpu in capacity.gpus:
            on_it = [share for one in leases for name, share in one.gpus if name == gpu.id]
            assert sum(parts(share) for share in on_it) <= 1000
            assert 1.0 not in on_it or len(on_it) == 1


@settings(max_examples=150, deadline=None)
@given(capacities, st.lists(needs, min_size=1, max_size=6))
def test_refused_is_exactly_what_the_empty_machine_cannot_hold(capacity: Capacity, gang: list[Need]) -> None:
    fits = fit_all(capacity, [], gang) is not None
    try:
        refuse_never(capacity, *gang)
    except UsageError as refusal:
        assert not fits
        if "--memory" in refusal.remedy and capacity.memory_bytes >= 2**20:
            most = parse_size(refusal.remedy.split()[-1])
            assert most <= capacity.memory_bytes
    else:
        assert fits
