"""Keeps the wanted tasks (store) equal to what the runtime sees: the reconcile step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import RowMapping, delete, insert, select, update

from ailab.attempts import KeyedPool, do_all
from ailab.errors import AilabError, NotFound
from ailab.events import record
from ailab.i18n import _
from ailab.runtimes import reasons
from ailab.runtimes.base import Runtime, Seen, TaskSpec, TaskState
from ailab.store import Store
from ailab.store import tasks as table
from ailab.unreadable import READ_ERRORS, unreadable

# A task that ran this long has started well: its failures are forgotten.
STEADY_SECONDS = 60.0
# Short enough that what failed for want of room runs soon after there is some.
LONGEST_PAUSE = 10.0
# A task that needs a new start gets it when nothing has run in it for so long.
IDLE_SECONDS = 15 * 60.0
_ENDED = (TaskState.absent, TaskState.exited)
_NEVER_SEEN = "absent"
# Ends that say nothing about the task: `down`, and a machine that went down.
_NO_FAILURE = ("stopped", "lost")


@dataclass(frozen=True)
class Task:
    """A wanted task and how the runtime sees it now; `fault` as `Runtime.fault` said it last of this attempt. `error`:
    why it cannot be started or stopped now."""

    spec: TaskSpec
    owner: str
    wanted: bool
    seen: Seen
    fault: str | None = None
    said: str = ""
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Everything but the command's environment, which may hold secrets."""
        spec = {"id": self.spec.id, "name": self.spec.name, "kind": str(self.spec.kind), "owner": self.owner}
        notes = [reasons.note(self.spec, self.seen), reasons.fault_note(self.spec, self.fault, IDLE_SECONDS), self.said]
        if self.error:
            notes.append(_("Starting or stopping it fails and is tried again: {reason}").format(reason=self.error))
        more = {"wanted": self.wanted, "fault": self.fault, "note": " ".join(filter(None, notes))}
        return spec | self.seen.to_json() | more


def pause_after(failures: int) -> float:
    """Seconds before the next start: none after the first failure, then 1, 2, 4 ... up to `LONGEST_PAUSE`."""
    return 0.0 if failures < 2 else min(LONGEST_PAUSE, 2.0 ** (failures - 2))


def _mark(seen: Seen) -> str:
    """What is compared to tell that something happened: a restart between two looks changes the attempt, and a process
    that was killed for memory, in a task that goes on, is one more."""
    return f"{seen.state}:{seen.attempt}" + (f":{seen.kills}" if seen.kills else "")


def _spec(row: RowMapping) -> TaskSpec:
    return TaskSpec.from_json(row["spec"])


def _checked(row: RowMapping) -> RowMapping:
    """A row that can be acted upon: a task of a form that this ailab does not know is neither started nor stopped."""
    _spec(row)
    if not isinstance(row["failures"], int) or not isinstance(row["not_before"], int | float):
        raise TypeError("failures or not_before")
    if not isinstance(row["seen"], str):
        raise TypeError("seen")
    return row


def _is_same(row: RowMapping, spec: TaskSpec) -> bool:
    try:
        return _spec(row) == spec
    except READ_ERRORS:
        return False


def _seconds_run(seen: Seen) -> float:
    if not seen.started_at or not seen.ended_at:
        return 0.0
    return (datetime.fromisoformat(seen.ended_at) - datetime.fromisoformat(seen.started_at)).total_seconds()


class Supervisor:
    """The only one that starts and stops tasks. Each change of a task's state is an event."""

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self._engine = store.engine
        self._unreadable = store.unreadable
        self._runtime = runtime
        self._beside = KeyedPool("task", 8, self._record_attempts)
        self._paused = False
        self._faults: dict[str, tuple[int, str]] = {}
        self._said: dict[str, str] = {}
        # What is to be stopped, and started with another specification.
        self._replaced: set[str] = set()
        self.changed = threading.Event()

    def want(self, spec: TaskSpec, *, owner: str, actor: str) -> Seen:
        """Make `spec` wanted; a task of that id that runs with another spec is stopped first. Returns what is seen."""
        row = self._row(spec.id)
        if row is not None and row["wanted"] and _is_same(row, spec):
            return self._runtime.poll(spec.id)
        if row is not None:
            self._runtime.stop(spec.id)
        values = {"owner": owner, "wanted": True, "spec": spec.to_json(), "failures": 0, "not_before": 0.0}
        with self._engine.begin() as connection:
            connection.execute(delete(table).where(table.c.id == spec.id))
            connection.execute(insert(table).values(id=spec.id, seen=_NEVER_SEEN, **values))
            record(connection, actor=actor, kind="task", subject=spec.id, after="wanted")
        self._unreadable.forget(f"tasks {spec.id}")
        self.changed.set()
        self._settle(spec.id)
        return self._runtime.poll(spec.id)

    def revise(self, change: Callable[[TaskSpec], TaskSpec]) -> None:
        """Change the specifications of tasks that do not run now; what runs is left as it is."""
        for before in self._unreadable.read("tasks", self._rows(), _spec):
            after = change(before)
            if after != before and self._runtime.poll(before.id).state in _ENDED:
                with self._engine.begin() as connection:
                    connection.execute(update(table).where(table.c.id == before.id).values(spec=after.to_json()))

    def respecify(self, spec: TaskSpec) -> None:
        """What a wanted task is started with from its next start on; what runs is left as it is."""
        with self._engine.begin() as connection:
            connection.execute(update(table).where(table.c.id == spec.id).values(spec=spec.to_json()))

    def tell(self, task_id: str, said: str) -> None:
        """Keep what a person should know of a task beside its state; an empty text takes it back."""
        if said:
            self._said[task_id] = said
        else:
            self._said.pop(task_id, None)

    def unwant(self, task_id: str, *, actor: str) -> Seen:
        """Stop a task and want it no more. Unknown ids are not an error."""
        self._mark_unwanted(task_id, actor=actor)
        seen = self._runtime.stop(task_id)
        with self._engine.begin() as connection:
            connection.execute(delete(table).where(table.c.id == task_id, table.c.wanted.is_(False)))
        self._beside.forget(task_id)
        self._unreadable.forget(f"tasks {task_id}")
        return seen

    def _mark_unwanted(self, task_id: str, *, actor: str) -> None:
        with self._engine.begin() as connection:
            if connection.execute(update(table).where(table.c.id == task_id).values(wanted=False)).rowcount:
                record(connection, actor=actor, kind="task", subject=task_id, after="unwanted")

    def task(self, task_id: str) -> Task:
        row = self._row(task_id)
        if row is None:
            raise NotFound(f"No task {task_id}.")
        try:
            return self._task(row)
        except READ_ERRORS as error:
            self._unreadable.note(f"tasks {task_id}", error)
            raise unreadable(f"tasks {task_id}", error) from None

    def tasks(self) -> list[Task]:
        return self._unreadable.read("tasks", self._rows(), lambda row: self._task(_checked(row)))

    def note_fault(self, task: Task, fault: str | None) -> None:
        """Keep what a running task has lost, as long as this attempt lasts; a new fault is an event."""
        if fault is None:
            self._faults.pop(task.spec.id, None)
        elif fault != task.fault:
            self._faults[task.spec.id] = (task.seen.attempt, fault)
            detail = {"reason": fault, "note": reasons.fault_note(task.spec, fault, IDLE_SECONDS)}
            self._record(task.spec.id, str(TaskState.running), "faulty", detail)

    def note(self, task_id: str, after: str, detail: dict[str, Any]) -> None:
        """An event of a task that runs."""
        self._record(task_id, str(TaskState.running), after, detail)

    def restart(self, task_id: str, *, reason: str) -> None:
        """Stop a task that runs, and start it again."""
        self._record(task_id, str(TaskState.running), "restarting", {"reason": reason})
        self._runtime.stop(task_id)
        self.changed.set()
        self._settle(task_id)

    def replace(self, spec: TaskSpec, *, reason: str) -> None:
        """Have a wanted task run as `spec`: the next `reconcile` stops it, beside the others, and one after that starts
        it again."""
        self.respecify(spec)
        self._record(spec.id, str(TaskState.running), "restarting", {"reason": reason})
        self._replaced.add(spec.id)
        self.changed.set()

    def drop(self, task_id: str) -> None:
        """Want a task no more; the next `reconcile` stops it."""
        self._mark_unwanted(task_id, actor="daemon")
        self.changed.set()

    def stop_all(self) -> None:
        """Stop every task but keep it wanted, so that the next start brings it back. One that cannot be stopped, for
        its engine does not answer, keeps none of the others from it; the daemon's log has why."""
        self._paused = True
        self._beside.each(self._runtime.tasks(), self._runtime.stop)

    def reconcile(self) -> None:
        """One step over all tasks: what is not as it should be is settled, beside the others, for a stop takes long."""
        rows = self._rows()
        self._beside.forget_others({row["id"] for row in rows})
        do_all(self._unreadable.read("tasks", rows, _checked), self._look_at)

    def _look_at(self, row: RowMapping) -> None:
        task_id, seen = row["id"], self._runtime.poll(row["id"])
        if task_id in self._replaced:
            self._beside.begin(task_id, partial(self._stop_replaced, task_id))
        elif row["wanted"] and seen.state == TaskState.running and row["seen"] == _mark(seen):
            self._beside.settled(task_id)
        else:
            self._beside.begin(task_id, partial(self._settle_alone, task_id))

    def _stop_replaced(self, task_id: str) -> None:
        self._runtime.stop(task_id)
        self._replaced.discard(task_id)
        self.changed.set()

    def faults(self) -> list[dict[str, Any]]:
        """What cannot be started or stopped now, as `Attempts.to_json` has it."""
        return self._beside.faults()

    def close(self) -> None:
        self._beside.close()

    def _rows(self) -> list[RowMapping]:
        with self._engine.connect() as connection:
            return list(connection.execute(select(table).order_by(table.c.id)).mappings())

    def _row(self, task_id: str) -> RowMapping | None:
        with self._engine.connect() as connection:
            return connection.execute(select(table).where(table.c.id == task_id)).mappings().first()

    def _task(self, row: RowMapping) -> Task:
        seen = self._runtime.poll(row["id"])
        attempt, fault = self._faults.get(row["id"], (0, None))
        there = seen.state == TaskState.running and seen.attempt == attempt
        said = self._said.get(row["id"], "")
        error = self._beside.error(row["id"])
        return Task(_spec(row), row["owner"], row["wanted"], seen, fault if there else None, said, error)

    def _record(self, task_id: str, before: str, after: str, detail: dict[str, Any]) -> None:
        with self._engine.begin() as connection:
            record(connection, actor="daemon", kind="task", subject=task_id, before=before, after=after, detail=detail)

    def _record_attempts(self, task_id: str, after: str, detail: dict[str, Any]) -> None:
        with self._engine.begin() as connection:
            record(connection, actor="daemon", kind="trouble", subject=task_id, after=after, detail=detail)

    def _settle(self, task_id: str) -> None:
        """Bring one task to where it should be, unless someone is at it already."""
        with self._beside.alone(task_id) as is_ours:
            if is_ours:
                self._settle_alone(task_id)

    def _settle_alone(self, task_id: str) -> None:
        row = self._row(task_id)
        if row is None:
            return
        seen = self._runtime.poll(task_id)
        self._note(row, seen)
        if not row["wanted"]:
            self.unwant(task_id, actor="daemon")
        elif seen.state in _ENDED and not self._paused and time.time() >= row["not_before"]:
            spec = _spec(row)
            if not spec.restart and row["seen"] != _NEVER_SEEN:
                self._forget(task_id)
                return
            try:
                started = self._runtime.start(spec)
            except AilabError as refused:
                self._note_refusal(task_id, refused)
                raise
            row = self._row(task_id)
            if row is None or not row["wanted"] or (row["seen"] == _NEVER_SEEN and _spec(row) != spec):
                # Whoever took it back, or wants it otherwise, meanwhile found nothing to stop yet.
                self._runtime.stop(task_id)
                self.changed.set()
            else:
                self._note(row, started)

    def _forget(self, task_id: str) -> None:
        """A task that was to run once has run."""
        with self._engine.begin() as connection:
            connection.execute(delete(table).where(table.c.id == task_id))
        self._beside.forget(task_id)

    def _note_refusal(self, task_id: str, refused: AilabError) -> None:
        """Write down that the runtime could not so much as try; the next try comes after the usual pause."""
        row = self._row(task_id)
        if row is None:
            return
        failures = row["failures"] + 1
        values = {"failures": failures, "not_before": time.time() + pause_after(failures)}
        with self._engine.begin() as connection:
            connection.execute(update(table).where(table.c.id == task_id).values(**values))
            if failures == 1:
                detail = {"reason": refused.message}
                record(connection, actor="daemon", kind="task", subject=task_id, after="refused", detail=detail)

    def _note(self, row: RowMapping | None, seen: Seen) -> None:
        """Write a change of state down, and after a failure when the next start may be."""
        if row is None or (row["seen"] == _mark(seen)):
            return
        values: dict[str, Any] = {"seen": _mark(seen)}
        if seen.state == TaskState.exited and seen.reason not in _NO_FAILURE:
            failures = 1 if _seconds_run(seen) > STEADY_SECONDS else row["failures"] + 1
            values |= {"failures": failures, "not_before": time.time() + pause_after(failures)}
        detail = {"pid": seen.pid, "exit_status": seen.exit_status, "reason": seen.reason, "attempt": seen.attempt}
        if seen.kills:
            spec = _spec(row)
            detail |= {"kills": seen.kills, "memory_bytes": spec.memory_bytes}
            detail |= {"reason": reasons.OUT_OF_MEMORY, "note": reasons.note(spec, seen)}
        with self._engine.begin() as connection:
            same = (table.c.id == row["id"]) & (table.c.seen == row["seen"])
            if connection.execute(update(table).where(same).values(**values)).rowcount:
                before, after = row["seen"].split(":")[0], str(seen.state)
                record(
                    connection,
                    actor="daemon",
                    kind="task",
                    subject=row["id"],
                    before=before,
                    after=after,
                    detail=detail,
                )
        self.changed.set()
