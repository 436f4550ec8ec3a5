"""The scheduler: whose turn it is, that nobody starves, that nothing is given twice, and that shares are fair."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ailab.jobs import gangs
from ailab.jobs.gangs import Strategy
from ailab.jobs.scheduling import HALF_LIFE, PATIENCE, Plan, Start, Waiting, charge, decayed, decide, yields
from ailab.resources import ledger
from ailab.resources.ledger import Capacity, Gpu, Lease, Need
from ailab.settings import GIB

NOW = 1_000_000.0


def machine(cpus: int = 8, gpus: int = 0) -> Capacity:
    return Capacity(cpus, cpus * GIB, tuple(Gpu(str(number), GIB) for number in range(gpus)))


def job(number: int, owner: str = "ana", *needs: Need, priority: int = 0, waited: float = 0.0) -> Waiting:
    return Waiting(number, owner, needs or (Need(),), priority, NOW - waited)


def leases_of(capacity: Capacity, start: Start) -> list[Lease]:
    placed = zip(start.needs, start.gpus, strict=True)
    return [
        ledger.lease(capacity, f"job-{start.job}-{at}", start.owner, need, gpus)
        for at, (need, gpus) in enumerate(placed)
    ]


def lease(owner: str, cpus: int, *gpus: tuple[str, float], task: str = "task") -> Lease:
    return Lease(task, owner, cpus, cpus * GIB, gpus)


def started(plan: Plan) -> list[int]:
    return [start.job for start in plan.starts]


def test_all_that_fits_starts_and_the_rest_says_why() -> None:
    plan = decide(NOW, machine(2), [], [job(1), job(2), job(3)], {})
    assert started(plan) == [1, 2] and plan.blocked == {3: "cpus"}


def test_each_lack_has_its_name() -> None:
    jobs = [job(1, "ana", Need(cpus=9)), job(2, "ana", Need(memory_bytes=99 * GIB)), job(3, "ana", Need(gpus=1))]
    plan = decide(NOW, machine(8), [], jobs, {})
    assert plan.blocked == {1: "cpus", 2: "memory", 3: "gpus"}


def test_who_has_used_least_is_first() -> None:
    jobs = [job(1, "ana", waited=9), job(2, "bo"), job(3, "che", waited=5)]
    assert started(decide(NOW, machine(1), [], jobs, {"ana": 10.0, "che": 5.0})) == [2]
    assert started(decide(NOW, machine(2), [], jobs, {"ana": 10.0, "che": 5.0})) == [2, 3]


def test_what_an_owner_holds_and_what_the_plan_gives_count_as_use() -> None:
    jobs = [job(number, owner) for owner, first in (("ana", 1), ("bo", 11)) for number in range(first, first + 8)]
    assert started(decide(NOW, machine(4), [], jobs, {})) == [1, 11, 2, 12]
    assert started(decide(NOW, machine(4), [lease("ana", 2)], jobs, {})) == [11, 12]


def test_of_one_owner_the_urgent_is_first_then_the_old() -> None:
    jobs = [job(1, waited=1), job(2, waited=5), job(3, priority=1), job(4, waited=9, priority=-1)]
    assert started(decide(NOW, machine(8), [], jobs, {})) == [3, 2, 1, 4]


def test_of_owners_who_used_the_same_the_older_job_is_first() -> None:
    jobs = [job(1, "ana"), job(2, "bo", waited=5)]
    assert started(decide(NOW, machine(1), [], jobs, {})) == [2]


def test_small_jobs_overtake_a_large_one_until_its_patience_ends() -> None:
    running = [lease("cho", 4)]
    small = job(2, "bo", Need(cpus=2))
    young = decide(NOW, machine(8), running, [job(1, "ana", Need(cpus=8), waited=PATIENCE), small], {"bo": 1.0})
    assert started(young) == [2] and young.blocked == {1: "cpus"}
    old = decide(NOW, machine(8), running, [job(1, "ana", Need(cpus=8), waited=PATIENCE + 1), small], {"bo": 1.0})
    assert started(old) == [] and old.blocked == {1: "cpus", 2: "turn"}


def test_what_is_kept_is_all_that_it_needs_and_no_more() -> None:
    capacity = machine(8, gpus=2)
    running = [lease("cho", 1, ("0", 1.0))]
    large = job(1, "ana", Need(cpus=4, gpus=2), waited=PATIENCE + 1)
    others = [job(2, "bo", Need(cpus=1, gpus=1)), job(3, "bo", Need(cpus=3)), job(4, "bo", Need(cpus=1))]
    plan = decide(NOW, capacity, running, [large, *others], {"bo": 1.0})
    assert started(plan) == [3] and plan.blocked == {1: "gpus", 2: "turn", 4: "turn"}
    assert plan.wants_gpus == 1


def test_nothing_is_kept_for_a_job_that_the_machine_cannot_run_any_more() -> None:
    jobs = [job(1, "ana", Need(gpus=2), waited=PATIENCE + 1), job(2, "bo", Need(gpus=1), waited=1)]
    plan = decide(NOW, machine(8, gpus=1), [lease("cho", 1, ("0", 0.5))], jobs, {})
    assert plan.blocked == {1: "gpus", 2: "gpus"} and plan.wants_gpus == 2


def test_a_gang_starts_whole_or_waits() -> None:
    gang = job(1, "ana", *[Need(cpus=2, gpus=1)] * 2)
    plan = decide(NOW, machine(8, gpus=2), [], [gang], {})
    assert plan.starts[0].gpus == ((("0", 1.0),), (("1", 1.0),)) and len(plan.starts[0].needs) == 2
    assert decide(NOW, machine(8, gpus=2), [lease("bo", 1, ("1", 0.1))], [gang], {}).blocked == {1: "gpus"}
    assert decide(NOW, machine(8, gpus=2), [lease("bo", 5)], [gang], {}).blocked == {1: "cpus"}


def test_use_fades_by_half_in_a_half_life_and_a_clock_set_back_changes_nothing() -> None:
    assert decayed(8.0, HALF_LIFE) == 4.0
    assert decayed(decayed(8.0, 100.0), 200.0) == pytest.approx(decayed(8.0, 300.0))
    assert decayed(8.0, -100.0) == 8.0


def test_the_charge_is_the_dominant_share_over_time() -> None:
    capacity = machine(8, gpus=4)
    assert charge(lease("ana", 2), capacity, 60.0) == 15.0
    assert charge(lease("ana", 2, ("0", 1.0), ("1", 0.5)), capacity, 80.0) == 30.0
    assert charge(Lease("task", "ana", 1, 4 * GIB), capacity, 60.0) == 30.0
    assert charge(lease("ana", 2, ("0", 1.0)), machine(8), 60.0) == 15.0


def test_who_is_idle_longest_is_asked_to_yield_and_nobody_in_vain() -> None:
    capacity = machine(8, gpus=4)
    held = [lease("w", 1, (str(number), 1.0), task=f"w{number}") for number in range(4)]
    idle = {"w0": 10.0, "w1": 30.0, "w2": 20.0}
    assert yields(capacity, held, [Need(gpus=1)], idle) == ("w1",)
    assert yields(capacity, held, [Need(gpus=1)] * 2, idle) == ("w1", "w2")
    assert yields(capacity, held, [Need(gpus=4)], idle) == ()
    assert yields(capacity, held[:3], [Need(gpus=1)], idle) == ()
    assert yields(capacity, held, [Need(cpus=8, gpus=1)], idle) == ()
    # w0 alone would have to yield for nothing: its other half is held by one that works.
    halves = [lease("w", 1, ("0", 0.5), task="w0"), lease("w", 1, ("0", 0.5), task="busy"),
              lease("w", 1, ("1", 1.0), task="w1")]  # fmt: skip
    assert yields(machine(8, gpus=2), halves, [Need(gpus=1)], {"w0": 99.0, "w1": 1.0}) == ("w1",)


def test_forty_people_who_submit_at_once_have_fair_shares() -> None:
    chance = random.Random(7)
    capacity, owners, each, step = machine(24), [f"user{number:02}" for number in range(40)], 60, 30.0
    waiting = {
        number: Waiting(number, owner, (Need(),), 0, NOW)
        for number, owner in enumerate(owner for owner in owners for _ in range(each))
    }
    lengths = {number: chance.uniform(60.0, 600.0) for number in waiting}
    left = dict.fromkeys(owners, each)
    usage, total = dict.fromkeys(owners, 0.0), dict.fromkeys(owners, 0.0)
    running: dict[int, tuple[float, Lease]] = {}
    now = NOW
    while min(left.values()):
        held = [one for _end, one in running.values()]
        for start in decide(now, capacity, held, waiting.values(), usage).starts:
            del waiting[start.job]
            left[start.owner] -= 1
            running[start.job] = now + lengths[start.job], leases_of(capacity, start)[0]
        assert len(running) == 24
        usage = {owner: decayed(used, step) for owner, used in usage.items()}
        for number, (end, one) in list(running.items()):
            took = charge(one, capacity, min(step, end - now))
            usage[one.owner] += took
            total[one.owner] += took
            if end <= now + step:
                del running[number]
        now += step
    fair = sum(total.values()) / len(owners)
    assert all(abs(used / fair - 1) < 0.05 for used in total.values()), sorted(total.values())


needs = st.builds(Need, st.integers(1, 4), st.integers(0, 4 * GIB), st.integers(0, 2)) | st.builds(
    Need, st.integers(1, 2), gpu_fraction=st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.7])
)


@settings(max_examples=30, deadline=None)
@given(needs, st.sampled_from([4, 100]), st.integers(0, 2**32))
def test_a_stream_of_small_jobs_starves_no_large_one(large: Need, cpus: int, seed: int) -> None:
    """Others keep the machine full for ever; who has used nothing waits at most their patience and one longest job."""
    chance = random.Random(seed)
    capacity, longest, step, now = machine(cpus, gpus=2), 300.0, 20.0, NOW
    usage: dict[str, float] = defaultdict(float, {"ana": 0.0})
    running: list[tuple[float, Lease]] = []
    serial = 1
    while now < NOW + PATIENCE + longest + 2 * step:
        # At first the others fill the machine.
        waiting = [Waiting(0, "ana", (large,), 0, NOW)] if now > NOW else []
        for owner in ("bo", "che", "dee"):
            small = (Need(), Need(gpu_fraction=0.3), Need(memory_bytes=GIB // 2, gpu_fraction=0.1))
            waiting += [Waiting(serial + at, owner, (need,), 0, now) for at, need in enumerate(small)]
            serial += len(small)
        plan = decide(now, capacity, [one for _end, one in running], waiting, usage)
        if 0 in started(plan):
            return
        for start in plan.starts:
            running.append((now + chance.uniform(step, longest), leases_of(capacity, start)[0]))
        for _end, one in running:
            usage[one.owner] += charge(one, capacity, step)
        now += step
        running = [(end, one) for end, one in running if end > now]
    raise AssertionError("it never started")


class Lab(RuleBasedStateMachine):
    """People submit, jobs end, time passes, the daemon is killed; after each of these it plans."""

    @initialize(cpus=st.integers(2, 12), gpus=st.integers(0, 4))
    def open(self, cpus: int, gpus: int) -> None:
        self.capacity = machine(cpus, gpus)
        self.now, self.serial = NOW, 0
        self.usage: dict[str, float] = {}
        self.waiting: dict[int, Waiting] = {}
        self.running: dict[int, list[Lease]] = {}

    @property
    def leases(self) -> list[Lease]:
        return [one for held in self.running.values() for one in held]

    @rule(
        owner=st.sampled_from(["ana", "bo", "che"]),
        gang=st.lists(needs, min_size=1, max_size=3)
        | st.builds(gangs.needs, st.sampled_from(Strategy), st.integers(1, 3), needs),
        priority=st.integers(-1, 1),
        count=st.integers(1, 4),
    )
    def submit(self, owner: str, gang: Sequence[Need], priority: int, count: int) -> None:
        if ledger.fit_all(self.capacity, [], gang) is not None:
            for _ in range(count):
                self.serial += 1
                self.waiting[self.serial] = Waiting(self.serial, owner, tuple(gang), priority, self.now)
        self.plan()

    @precondition(lambda self: self.running)
    @rule(at=st.integers(0, 99))
    def finish(self, at: int) -> None:
        del self.running[list(self.running)[at % len(self.running)]]
        self.plan()

    @rule(seconds=st.sampled_from([1.0, PATIENCE / 2, 2 * PATIENCE, HALF_LIFE]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.usage = {owner: decayed(used, seconds) for owner, used in self.usage.items()}
        for one in self.leases:
            self.usage[one.owner] = self.usage.get(one.owner, 0.0) + charge(one, self.capacity, seconds)
        self.plan()

    @rule()
    def killed_and_started_again(self) -> None:
        """What is kept as JSON is all that is known then, and says the same."""
        kept = {number: json.dumps([one.to_json() for one in held]) for number, held in self.running.items()}
        found = {number: [Lease.from_json(one) for one in json.loads(held)] for number, held in kept.items()}
        assert found == self.running
        before = self.decide()
        self.running = found
        assert self.decide() == before
        self.plan()

    def decide(self) -> Plan:
        return decide(self.now, self.capacity, self.leases, self.waiting.values(), self.usage)

    def plan(self) -> None:
        plan = self.decide()
        assert sorted([*started(plan), *plan.blocked]) == sorted(self.waiting), "each job has one answer"
        for start in plan.starts:
            asked = self.waiting.pop(start.job)
            assert start.owner == asked.owner and len(start.needs) == len(start.gpus) == len(asked.needs)
            for need, shares in zip(asked.needs, start.gpus, strict=True):
                assert len(shares) == need.gpus + bool(need.gpu_fraction)
            self.running[start.job] = leases_of(self.capacity, start)
        patient = all(self.now - one.submitted_at <= PATIENCE for one in self.waiting.values())
        for number, reason in plan.blocked.items():
            fits = ledger.fit_all(self.capacity, self.leases, self.waiting[number].needs) is not None
            assert fits == (reason == "turn") and not (fits and patient)
        assert (plan.wants_gpus is not None) == ("gpus" in plan.blocked.values())

    @invariant()
    def nothing_is_given_twice(self) -> None:
        leases = self.leases
        assert sum(one.cpus for one in leases) <= self.capacity.cpus
        assert sum(one.memory_bytes for one in leases) <= self.capacity.memory_bytes
        for gpu in self.capacity.gpus:
            on_it = [share for one in leases for name, share in one.gpus if name == gpu.id]
            assert sum(round(share * 1000) for share in on_it) <= 1000
            assert 1.0 not in on_it or len(on_it) == 1

    @invariant()
    def the_machine_does_not_idle_while_jobs_wait(self) -> None:
        assert self.running or not self.waiting

    def teardown(self) -> None:
        """When jobs end, every job starts: at least one for each end of all that run."""
        if not hasattr(self, "capacity"):
            return
        for _ in range(len(self.waiting)):
            self.running.clear()
            self.now += PATIENCE + 1
            self.plan()
        assert not self.waiting


Lab.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLab = Lab.TestCase
