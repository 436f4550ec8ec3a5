"""When idle workspaces give their GPUs to a job and have them back: the decision, over days of made-up life."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ailab.jobs.yielding import Holder, Moves, free_gpus, moves
from ailab.resources import ledger
from ailab.resources.ledger import Capacity, Gpu, Lease, Need

GPUS = Capacity(8, 2**34, tuple(Gpu(str(number), 2**34) for number in range(3)))
IDLE, NOTICE = 900.0, 300.0
ONE = (Need(1, 1, 1),)


def lease(task: str, *gpus: str) -> Lease:
    return Lease(task, "li", 1, 1, tuple((gpu, 1.0) for gpu in gpus))


def decided(now: float, leases: list[Lease], needs: tuple[Need, ...], *holders: Holder) -> Moves:
    return moves(now, GPUS, leases, needs, holders, idle_seconds=IDLE, notice_seconds=NOTICE)


TWO = [lease("a", "0", "1"), lease("job-1", "2")]


def test_first_notice_then_the_gpus() -> None:
    idle = Holder("a", 2, IDLE)
    assert decided(0, TWO, ONE, idle) == Moves(tell=("a",))
    assert decided(NOTICE - 1, TWO, ONE, replace(idle, told=0.0)) == Moves()
    assert decided(NOTICE, TWO, ONE, replace(idle, told=0.0)) == Moves(take=("a",))


@pytest.mark.parametrize("idle", [0.0, IDLE - 1])
def test_who_works_is_left_and_who_comes_back_keeps_them(idle: float) -> None:
    assert decided(0, TWO, ONE, Holder("a", 2, idle)) == Moves()
    assert decided(NOTICE, TWO, ONE, Holder("a", 2, idle, told=0.0)) == Moves(withdraw=("a",))


def test_who_has_come_back_between_two_looks_is_told_anew() -> None:
    later = 3 * IDLE
    back = Holder("a", 2, IDLE + 1, told=0.0)
    assert decided(later, TWO, ONE, back) == Moves(withdraw=("a",))
    assert decided(later + 10, TWO, ONE, replace(back, idle=IDLE + 11, told=None)) == Moves(tell=("a",))


def test_nobody_is_asked_in_vain() -> None:
    three = (Need(1, 1, 3),)
    assert decided(0, TWO, three, Holder("a", 2, IDLE)) == Moves(), "a job holds the third"
    free = [lease("a", "0")]
    assert decided(0, free, ONE, Holder("a", 2, IDLE)) == Moves(), "there are two that nobody holds"


def test_all_or_none() -> None:
    leases, needs = [lease("a", "0"), lease("b", "1"), lease("job-1", "2")], (Need(1, 1, 2),)
    early, late = Holder("a", 1, IDLE + 9, told=0.0), Holder("b", 1, IDLE)
    assert decided(NOTICE, leases, needs, early, late) == Moves(tell=("b",))
    assert decided(2 * NOTICE, leases, needs, early, replace(late, told=NOTICE)) == Moves(take=("a", "b"))


def test_they_come_back_once_no_job_waits() -> None:
    leases = [lease("a"), lease("b", "0")]
    lacking = (Holder("a", 2, IDLE + 5), Holder("b", 2, IDLE))
    assert decided(0, leases, ONE, *lacking).give == {}
    assert decided(0, leases, (), *lacking).give == {"b": ("0", "1"), "a": ("2",)}
    assert decided(0, leases, (), Holder("a", 2, 0.0), Holder("b", 2, 0.0)).give == {}, "nobody is disturbed at work"
    assert decided(0, leases, (), replace(lacking[0], may_have=("2",))).give == {"a": ("2",)}


class Days(RuleBasedStateMachine):
    """Workspaces in which people come and go, and jobs that come and end. What is decided is done at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.leases = {name: lease(name) for name in ("a", "b")}
        self.worked = dict.fromkeys(self.leases, 0.0)
        self.told: dict[str, float] = {}
        self.waiting: list[int] = []
        self.jobs = 0

    @rule(seconds=st.sampled_from([10.0, 200.0, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=st.sampled_from(["a", "b"]))
    def somebody_works(self, name: str) -> None:
        self.worked[name] = self.now

    @rule(gpus=st.integers(1, 3))
    def a_job_comes(self, gpus: int) -> None:
        self.waiting.append(gpus)

    @precondition(lambda self: any(name.startswith("job") for name in self.leases))
    @rule(data=st.data())
    def a_job_ends(self, data: st.DataObject) -> None:
        del self.leases[data.draw(st.sampled_from([name for name in self.leases if name.startswith("job")]))]

    @rule()
    def look(self) -> None:
        held = list(self.leases.values())
        needs = (Need(1, 1, self.waiting[0]),) if self.waiting else ()
        holders = [Holder(name, 1, self.now - at, self.told.get(name)) for name, at in self.worked.items()]
        found = decided(self.now, held, needs, *holders)
        for name in found.take:
            assert self.now - self.worked[name] >= IDLE and self.now - self.told[name] >= NOTICE
            assert self.worked[name] <= self.told[name], "who has worked since the notice keeps them"
            self.leases[name] = lease(name)
        if found.take:
            assert ledger.fit_all(GPUS, list(self.leases.values()), needs) is not None, "taken in vain"
        for name, gpus in found.give.items():
            assert not needs and set(gpus) > {gpu for gpu, _share in self.leases[name].gpus}
            self.leases[name] = lease(name, *gpus)
        for name in (*found.withdraw, *found.take):
            del self.told[name]
        self.told |= dict.fromkeys(found.tell, self.now)

    @precondition(lambda self: self.waiting)
    @rule()
    def the_next_job_starts_if_it_fits(self) -> None:
        free = free_gpus(GPUS, list(self.leases.values()), self.waiting[0])
        if len(free) == self.waiting[0]:
            self.jobs += 1
            self.leases[f"job-{self.jobs}"] = lease(f"job-{self.jobs}", *free)
            del self.waiting[0]

    @invariant()
    def nothing_is_held_twice(self) -> None:
        held = [gpu for one in self.leases.values() for gpu, _share in one.gpus]
        assert len(held) == len(set(held))

    def teardown(self) -> None:
        """Nobody works any more: every job that waits is run, and then every workspace has its own back."""
        for _time in range(12 * (len(self.waiting) + 2)):
            self.now += IDLE
            self.look()
            if self.waiting:
                self.the_next_job_starts_if_it_fits()
            for name in [name for name in self.leases if name.startswith("job")]:
                del self.leases[name]
        assert not self.waiting
        assert all(len(one.gpus) == 1 for one in self.leases.values())


TestDays = Days.TestCase
TestDays.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
