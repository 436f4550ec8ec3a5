"""Runs jobs: starts those whose turn has come, looks at those that run, and writes down how they end."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import RowMapping

from ailab.errors import AilabError
from ailab.i18n import _
from ailab.jobs.ends import TIMEOUT, end_of, is_retried, pause_before, seconds
from ailab.jobs.model import ENDED, After, EndReason, JobState, task_id
from ailab.jobs.queue import End, Job, Jobs
from ailab.jobs.scheduling import Waiting, charge, decide
from ailab.resources.ledger import Capacity, Lease, Need, lease
from ailab.runtimes.base import Runtime, Seen, TaskSpec, TaskState

# From a job and the lease that it was given to what is run.
MakeSpec = Callable[[Job, Lease], TaskSpec]
# Between two looks: while a job has just begun, which may be a short one, and else.
QUICK_SECONDS = 0.05
IDLE_SECONDS = 1.0
YOUNG_SECONDS = 10.0
# A plan is made when something has changed, and else so often: whose patience ends is a change, too.
PLAN_SECONDS = 10.0


@dataclass(frozen=True)
class Entry:
    """A job of the queue: what the scheduler is told of it, when it may start at the earliest (seconds since the
    epoch), and after which others."""

    waiting: Waiting
    not_before: float
    after: tuple[After, ...]


class Worker:
    """One step at a time, by one thread; what takes long (starts and stops) is done beside it. Nothing is kept here
    that a new worker would not find again: the store says what should be, the runtime what is."""

    def __init__(self, jobs: Jobs, runtime: Runtime, capacity: Capacity, make_spec: MakeSpec) -> None:
        self._jobs = jobs
        self._runtime = runtime
        self.capacity = capacity
        self._make_spec = make_spec
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="job")
        self._busy: set[int] = set()
        self._lock = threading.Lock()
        self._deadlines: dict[int, float] = {}
        self._queue: dict[int, Entry] = {}
        self._loaded = False
        self._paused = False
        self._next_plan = 0.0
        # Why each job that waits could not start at the last look; for people.
        self.blocked: dict[int, str] = {}

    def step(self) -> float:
        """Look at all that runs, then start what may start. Seconds until the next look is worth while."""
        if self._paused:
            return IDLE_SECONDS
        youngest = self._look()
        changed = self._take_in()
        if changed or time.monotonic() >= self._next_plan:
            self._next_plan = time.monotonic() + PLAN_SECONDS
            self._start()
        return QUICK_SECONDS if youngest < YOUNG_SECONDS else IDLE_SECONDS

    def _take_in(self) -> bool:
        """Bring the queue up to what the store has; whether there was anything, or a time has come."""
        touched = self._jobs.touched()
        among = touched if self._loaded else None
        if among is None or touched:
            for job in touched:
                self._queue.pop(job, None)
            rows = self._jobs.queued(among)
            after = self._jobs.after([row["id"] for row in rows if row["waits"]])
            for row in rows:
                waiting = _waiting(row)
                self._queue[row["id"]] = Entry(waiting, row["not_before"], after.get(row["id"], ()))
            self._loaded = True
            return True
        now = time.time()
        return any(now - IDLE_SECONDS <= entry.not_before <= now for entry in self._queue.values())

    def pause(self) -> None:
        """Start nothing and judge nothing any more: the lab goes down, and what is stopped with it has not failed."""
        self._paused = True

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _look(self) -> float:
        """Look at every job that has leases; for how many seconds the youngest has run."""
        youngest = float("inf")
        for job in self._jobs.holding():
            youngest = min(youngest, time.time() - job.started_at if job.started_at else 0.0)
            if self._is_busy(job.id):
                continue
            seen = self._runtime.poll(job.task)
            if seen.state in (TaskState.running, TaskState.starting) and seen.attempt >= job.attempt:
                self._goes_on(job, seen)
            elif seen.state == TaskState.unknown:
                continue
            elif job.state == JobState.starting and not _has_run(job, seen):
                # Who started it was interrupted on the way, this daemon's predecessor as a rule.
                self._beside(job, self._start_task)
            else:
                self._ended(job, seen)
        return youngest

    def _goes_on(self, job: Job, seen: Seen) -> None:
        if job.state == JobState.starting and seen.state == TaskState.running:
            self._jobs.started(job.id, seen.attempt, seconds(seen.started_at) or time.time())
        if job.asked:
            self._beside(job, self._stop_task)
        elif self._is_overdue(job, seen):
            self._jobs.ask_to_stop(job.id, TIMEOUT, actor="daemon")

    def _is_overdue(self, job: Job, seen: Seen) -> bool:
        """By a clock that nobody sets, from the first look on."""
        if not job.request.timeout or seen.started_at is None:
            return False
        if job.id not in self._deadlines:
            ran = max(0.0, time.time() - (seconds(seen.started_at) or 0.0))
            self._deadlines[job.id] = time.monotonic() + job.request.timeout - min(ran, job.request.timeout)
        return time.monotonic() >= self._deadlines[job.id]

    def _ended(self, job: Job, seen: Seen) -> None:
        if seen.state == TaskState.absent:
            seen = Seen(TaskState.exited, reason=EndReason.lost, attempt=job.attempt)
        self._finish(job, end_of(job, seen, self._runtime.spec(job.task)))

    def _finish(self, job: Job, end: End) -> None:
        self._deadlines.pop(job.id, None)
        if is_retried(job, end):
            failures = job.failures + 1
            pause = 0.0 if end.reason == EndReason.lost and job.request.resume else pause_before(failures)
            self._jobs.again(job, end, self.capacity, not_before=time.time() + pause, failures=failures)
        else:
            self._jobs.end(job, end, self.capacity)

    def _start(self) -> None:
        """Give leases to those whose turn it is, and start them."""
        now = time.time()
        states = self._jobs.states_of({after.job for entry in self._queue.values() for after in entry.after})
        due = [entry for entry in list(self._queue.values()) if entry.not_before <= now]
        waiting = [entry.waiting for entry in due if self._is_released(entry, states)]
        if not waiting:
            self.blocked = {}
            return
        held_now, usage = self._jobs.leases(), self._jobs.usage(now)
        for held, since in held_now:
            # What is held is charged when it is given back; until then it counts all the same.
            usage[held.owner] = usage.get(held.owner, 0.0) + charge(held, self.capacity, max(0.0, now - since))
        plan = decide(now, self.capacity, [held for held, _since in held_now], waiting, usage)
        self.blocked = dict(plan.blocked)
        for start in plan.starts:
            wanted = self._queue.pop(start.job).waiting
            held = lease(self.capacity, task_id(start.job), wanted.owner, wanted.needs[0], start.gpus[0])
            if self._jobs.claim(start.job, held):
                self._beside(self._jobs.get(start.job), self._start_task)

    def _is_released(self, entry: Entry, states: Mapping[int, str]) -> bool:
        """Whether all that a job comes after have ended; one that did not end as it should have ends this one."""
        for after in entry.after:
            # One that is known no more has ended long ago.
            state = states.get(after.job, JobState.done)
            if after.on == "ok" and state in (JobState.failed, JobState.stopped):
                text = _("Job {id}, which it comes after, ended as {state}.").format(id=after.job, state=state)
                job = self._jobs.get(entry.waiting.job)
                self._jobs.end(job, End(JobState.failed, EndReason.never, text), self.capacity)
                return False
            if state not in ENDED:
                return False
        return True

    def _start_task(self, job: Job) -> None:
        held = next((held for held, _since in self._jobs.leases() if held.task == job.task), None)
        if held is None:
            return
        try:
            seen = self._runtime.start(self._make_spec(job, held))
        except AilabError as refused:
            note = f"{refused.message} {refused.remedy}".strip()
            self._finish(job, End(JobState.failed, EndReason.cannot_start, note))
            return
        if seen.state == TaskState.exited and seen.started_at is None:
            self._finish(job, end_of(job, seen, None))
        elif seen.state == TaskState.running:
            self._jobs.started(job.id, seen.attempt, seconds(seen.started_at) or time.time())
        self._jobs.changed.set()

    def _stop_task(self, job: Job) -> None:
        self._runtime.stop(job.task)
        self._jobs.changed.set()

    def _beside(self, job: Job, work: Callable[[Job], None]) -> None:
        with self._lock:
            if job.id in self._busy:
                return
            self._busy.add(job.id)
        self._pool.submit(self._work, job, work)

    def _work(self, job: Job, work: Callable[[Job], None]) -> None:
        try:
            work(job)
        except Exception:
            print(f"{job.task}: {traceback.format_exc()}", file=sys.stderr, flush=True)
        finally:
            with self._lock:
                self._busy.discard(job.id)

    def _is_busy(self, job: int) -> bool:
        with self._lock:
            return job in self._busy


def _has_run(job: Job, seen: Seen) -> bool:
    """Whether the attempt that the job is at has been run, as far as the runtime knows: its attempts are counted as the
    job's are. One of which not so much as a start is known was interrupted on its way, with whoever started it."""
    if seen.state == TaskState.absent or seen.attempt < job.attempt:
        return False
    return seen.started_at is not None or not (seen.reason or "").startswith("cannot-start")


def _waiting(row: RowMapping) -> Waiting:
    need = Need(row["cpus"], row["memory_bytes"], row["gpus"], row["gpu_fraction"])
    since = max(row["submitted_at"], row["not_before"])
    return Waiting(row["id"], row["owner"], (need,), row["priority"], since)
