"""Runs jobs: starts those whose turn has come, looks at those that run, and writes down how they end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import RowMapping

from ailab.attempts import KeyedPool, do_all
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.jobs.ends import LONGEST_PAUSE, TIMEOUT, end_of, is_retried, pause_before, seconds
from ailab.jobs.gangs import NOT_BEGUN, OVER, Member, is_over, members, needs, of_attempt, span
from ailab.jobs.model import ENDED, After, EndReason, JobState
from ailab.jobs.queue import End, Holding, Job, Jobs
from ailab.jobs.scheduling import Start, Waiting, charge, decide
from ailab.resources.ledger import Capacity, Lease, Need, lease
from ailab.resources.ports import free_ports
from ailab.runtimes.base import Runtime, Seen, TaskSpec, TaskState
from ailab.unreadable import Unreadable

# From a job and the leases that it was given, one for each of its tasks, to what is run.
MakeSpecs = Callable[[Job, Sequence[Lease]], Sequence[TaskSpec]]
# Between two looks: while a job has just begun, which may be a short one, and else.
QUICK_SECONDS = 0.05
IDLE_SECONDS = 1.0
YOUNG_SECONDS = 10.0
# A plan is made when something has changed, and else so often: whose patience ends is a change, too.
PLAN_SECONDS = 10.0
# A task that has run and is not there any more.
_LOST = Seen(TaskState.exited, reason=EndReason.lost)


@dataclass(frozen=True)
class Entry:
    """A job of the queue: what the scheduler is told of it, its tasks, whether they are to meet, whether it has run
    before, when it may start at the earliest (seconds since the epoch), and after which others."""

    waiting: Waiting
    members: tuple[Member, ...]
    meets: bool
    again: bool
    not_before: float
    after: tuple[After, ...]

    def is_due(self, now: float) -> bool:
        """A pause before another attempt that is longer than any of ours is that of a clock that was set back."""
        return self.not_before <= now or (self.again and self.not_before > now + LONGEST_PAUSE)


class Worker:
    """One step at a time, by one thread; what takes long (starts and stops) is done beside it. Nothing is kept here
    that a new worker would not find again: the store says what should be, the runtime what is."""

    def __init__(self, jobs: Jobs, runtime: Runtime, capacity: Capacity, make_specs: MakeSpecs) -> None:
        self._jobs = jobs
        self._runtime = runtime
        self.capacity = capacity
        self._make_specs = make_specs
        self._beside = KeyedPool("job", 16, jobs.note_attempts)
        self._deadlines: dict[int, float] = {}
        self._unknown: dict[int, str] = {}
        self._queue: dict[int, Entry] = {}
        self._loaded = False
        self._paused = False
        self._next_plan = 0.0
        # Why each job that waits could not start at the last look; for people.
        self.blocked: dict[int, str] = {}
        # The job that is next in turn of those that wait for GPUs, and what it needs.
        self.wants_gpus: tuple[int, tuple[Need, ...]] | None = None

    def step(self) -> float:
        """Look at all that runs, then start what may start. Seconds until the next look is worth while. Raises what
        looking at a job failed of, once the others have been seen to."""
        if self._paused:
            return IDLE_SECONDS
        youngest, failure = self._look()
        changed = self._take_in()
        if changed or time.monotonic() >= self._next_plan:
            # Before the plan: who asks for another one meanwhile gets it.
            self._next_plan = time.monotonic() + PLAN_SECONDS
            try:
                with self._jobs.leasing:
                    self._start()
            except BaseException:
                self._next_plan = 0.0
                raise
        if failure is not None:
            raise failure
        return QUICK_SECONDS if youngest < YOUNG_SECONDS else IDLE_SECONDS

    def _take_in(self) -> bool:
        """Bring the queue up to what the store has; whether there was anything, or a time has come."""
        touched = self._jobs.touched()
        among = touched if self._loaded else None
        if among is None or touched:
            # A failure on the way would lose those that were touched: then all are loaded again.
            self._loaded = False
            for job in touched:
                self._queue.pop(job, None)
            rows = self._jobs.queued(among)
            after = self._jobs.after([row["id"] for row in rows if row["waits"]])
            for row in rows:
                if row["waits"] and row["id"] not in after:
                    # What it comes after cannot be read.
                    continue
                gang = members(row["id"], row["strategy"], row["workers"])
                waits_for = row["not_before"], after.get(row["id"], ())
                what = _waiting(row), gang, bool(row["strategy"]), row["failures"] > 0
                self._queue[row["id"]] = Entry(*what, *waits_for)
            self._loaded = True
            return True
        now = time.time()
        return any(now - IDLE_SECONDS <= entry.not_before <= now for entry in self._queue.values())

    def plan_soon(self) -> None:
        """Something that is no job has given back what it held."""
        self._next_plan = 0.0
        self._jobs.changed.set()

    def pause(self) -> None:
        """Start nothing and judge nothing any more: the lab goes down, and what is stopped with it has not failed."""
        self._paused = True

    def close(self) -> None:
        self._beside.close()

    def error(self, job: int) -> str:
        """Of what starting, stopping or looking at a job fails now; empty where it does not."""
        return self._beside.error(job) or self._beside.error(_looking(job))

    def unknown(self, job: int) -> str:
        """Why it cannot be told whether a job runs; empty where it can."""
        return self._unknown.get(job, "")

    def faults(self) -> list[dict[str, Any]]:
        """The jobs of which `error` is not empty, as `Attempts.to_json` has it."""
        return self._beside.faults()

    def _look(self) -> tuple[float, BaseException | None]:
        """Look at every job that has leases; for how many seconds the youngest has run, and what one failed of."""
        youngest, failure = float("inf"), None
        for job in self._jobs.holding():
            age = time.time() - job.started_at if job.started_at else 0.0
            # Of one that began in the future, the clock has been set back since.
            youngest = min(youngest, age if age >= 0 else YOUNG_SECONDS)
            if not self._beside.is_busy(job.id):
                failure = self._beside.here(_looking(job.id), partial(self._look_at, job)) or failure
        return youngest, failure

    def _look_at(self, job: Holding) -> None:
        seen = [of_attempt(self._runtime.poll(one.task), job.attempt) for one in job.members]
        self._judge(job, seen)

    def _judge(self, job: Holding, seen: list[Seen]) -> None:
        """Do what is due for a job whose tasks are so in its attempt."""
        states = {one.state for one in seen}
        self._unknown.pop(job.id, None)
        if TaskState.unknown in states:
            self._unknown[job.id] = next(one.reason or "" for one in seen if one.state == TaskState.unknown)
            return
        starting = job.state == JobState.starting
        if starting and TaskState.absent in states and not job.asked and not is_over(job.strategy, seen):
            # Who started it was interrupted on the way, this daemon's predecessor as a rule.
            self._begin(job.id, self._start_tasks)
            return
        seen = [(NOT_BEGUN if starting else _LOST) if one.state == TaskState.absent else one for one in seen]
        if states & {TaskState.running, TaskState.starting}:
            self._goes_on(job, seen)
        else:
            self._ended(self._jobs.get(job.id), seen)

    def _goes_on(self, job: Holding, seen: Sequence[Seen]) -> None:
        if job.state == JobState.starting and all(one.started_at for one in seen):
            self._jobs.started(job.id, _began(seen))
        if job.asked:
            self._begin(job.id, self._stop_tasks)
            return
        if all(one.started_at for one in seen):
            self._beside.settled(job.id)
        if is_over(job.strategy, seen):
            self._jobs.wind_up(job.id, OVER)
        elif self._is_overdue(job.id, seen):
            self._jobs.wind_up(job.id, TIMEOUT)

    def _is_overdue(self, job: int, seen: Sequence[Seen]) -> bool:
        """By a clock that nobody sets, from the first look on."""
        if not all(one.started_at for one in seen):
            return False
        if job not in self._deadlines:
            timeout = self._jobs.get(job).request.timeout or math.inf
            ran = max(0.0, time.time() - _began(seen))
            self._deadlines[job] = time.monotonic() + timeout - min(ran, timeout)
        return time.monotonic() >= self._deadlines[job]

    def _ended(self, job: Job, seen: Sequence[Seen]) -> None:
        self._finish(job, end_of(job, seen, self._runtime.spec))

    def _finish(self, job: Job, end: End) -> None:
        self._deadlines.pop(job.id, None)
        if is_retried(job, end):
            failures = job.failures + 1
            pause = 0.0 if end.reason == EndReason.lost and job.request.resume else pause_before(failures)
            self._jobs.again(job, end, self.capacity, not_before=time.time() + pause, failures=failures)
        else:
            self._jobs.end(job, end, self.capacity)
        for key in (job.id, _looking(job.id)):
            self._beside.forget(key)

    def _start(self) -> None:
        """Give leases to those whose turn it is, and start them."""
        now = time.time()
        states = self._jobs.states_of({after.job for entry in self._queue.values() for after in entry.after})
        due = [entry for entry in list(self._queue.values()) if entry.is_due(now)]
        waiting = [entry.waiting for entry in due if self._is_released(entry, states)]
        if not waiting:
            self.blocked, self.wants_gpus = {}, None
            return
        held_now, usage = self._jobs.leases(), self._jobs.usage(now)
        for held, since in held_now:
            # What is held is charged when it is given back; until then it counts all the same.
            usage[held.owner] = usage.get(held.owner, 0.0) + charge(held, self.capacity, max(0.0, now - since))
        plan = decide(now, self.capacity, [held for held, _since in held_now], waiting, usage)
        self.blocked = dict(plan.blocked)
        self.wants_gpus = next(((one.job, one.needs) for one in waiting if one.job == plan.wants_gpus), None)
        do_all(plan.starts, self._start_one)

    def _start_one(self, start: Start) -> None:
        """Give a job its leases. It stays in the queue while that fails."""
        entry = self._queue[start.job]
        placed = zip(entry.members, entry.waiting.needs, start.gpus, strict=True)
        given = [lease(self.capacity, one.task, start.owner, need, gpus) for one, need, gpus in placed]
        ports = free_ports("", len(given)) if entry.meets else []
        is_claimed = self._can_be_read(start.job) and self._jobs.claim(start.job, given, ports)
        self._queue.pop(start.job)
        if is_claimed:
            self._begin(start.job, self._start_tasks)

    def _can_be_read(self, job: int) -> bool:
        """A job that ailab cannot read is left as it is: it must not hold what it could not be started with."""
        try:
            self._jobs.get(job)
        except Unreadable:
            return False
        return True

    def _is_released(self, entry: Entry, states: Mapping[int, str]) -> bool:
        """Whether all that a job comes after have ended; one that did not end as it should have ends this one."""
        for after in entry.after:
            # One that is known no more has ended long ago.
            state = states.get(after.job, JobState.done)
            if after.on == "ok" and state in (JobState.failed, JobState.stopped):
                text = _("Job {id}, which it comes after, ended as {state}.").format(id=after.job, state=state)
                with suppress(Unreadable):
                    job = self._jobs.get(entry.waiting.job)
                    self._jobs.end(job, End(JobState.failed, EndReason.never, text), self.capacity)
                return False
            if state not in ENDED:
                return False
        return True

    def _start_tasks(self, number: int) -> None:
        """Start all tasks of a job; one that has been started in this attempt is left as it is. Where one cannot be,
        those before it are stopped again."""
        job, given = self._jobs.get(number), {held.task: held for held, _since in self._jobs.leases()}
        tasks = [one.task for one in job.members]
        if not all(task in given for task in tasks):
            return
        seen: list[Seen] = []
        try:
            for spec in self._make_specs(job, [given[task] for task in tasks]):
                seen.append(self._runtime.start(spec))
                if seen[-1].state == TaskState.exited and seen[-1].started_at is None:
                    others = [NOT_BEGUN] * (len(tasks) - 1)
                    others.insert(len(seen) - 1, seen[-1])
                    self._cannot_start(job, end_of(replace(job, asked=job.asked or OVER), others, self._runtime.spec))
                    return
        except AilabError as refused:
            note = f"{refused.message} {refused.remedy}".strip()
            self._cannot_start(job, End(JobState.failed, EndReason.cannot_start, note))
            return
        if all(one.started_at for one in seen):
            self._jobs.started(number, _began(seen))
        self._jobs.changed.set()

    def _cannot_start(self, job: Job, end: End) -> None:
        self._stop_tasks(job.id)
        self._finish(job, end)

    def _stop_tasks(self, number: int) -> None:
        tasks = [one.task for one in self._jobs.get(number).members]
        with ThreadPoolExecutor(len(tasks)) as beside:
            list(beside.map(self._runtime.stop, tasks))
        self._jobs.changed.set()

    def _begin(self, job: int, work: Callable[[int], None]) -> None:
        self._beside.begin(job, partial(work, job))


def _looking(job: int) -> str:
    """The key of looking at a job, which may begin to start or stop it: those have its number."""
    return f"job-{job}"


def _began(seen: Sequence[Seen]) -> float:
    """When the first of them began, in seconds since the epoch."""
    return seconds(span(seen)[0]) or time.time()


def _waiting(row: RowMapping) -> Waiting:
    each = Need(row["cpus"], row["memory_bytes"], row["gpus"], row["gpu_fraction"])
    since = max(row["submitted_at"], row["not_before"])
    return Waiting(row["id"], row["owner"], needs(row["strategy"], row["workers"], each), row["priority"], since)
