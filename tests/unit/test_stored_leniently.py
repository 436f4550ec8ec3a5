"""One stored row or file that cannot be read is passed over, shown and kept; everything else goes on."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from job_room import Room
from sqlalchemy import text

from ailab import events
from ailab.daemon.loop import recorder_of_unreadable
from ailab.daemon.supervisor import Supervisor
from ailab.environments.labs import Labs
from ailab.jobs import schedules
from ailab.jobs.known_digests import KnownDigests
from ailab.jobs.model import After, JobRequest, JobState
from ailab.jobs.wish import JobWish
from ailab.paths import MachinePaths
from ailab.runtimes.base import TaskSpec, TaskState
from ailab.runtimes.process import ProcessRuntime
from ailab.store import Store
from ailab.tracking.writer import Writer
from ailab.unreadable import Unreadable
from ailab.waiting import TimedOut, wait_for

SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with Room(tmp_path) as made:
        yield made


def sql(store: Store, statement: str, **values: object) -> None:
    with store.engine.begin() as connection:
        connection.execute(text(statement), values)


def met(store: Store) -> list[str]:
    return sorted(one.what for one in store.unreadable.met())


def request_of(room: Room, table: str, row: int) -> dict[str, Any]:
    with room.store.engine.connect() as connection:
        found = connection.execute(text(f"SELECT request FROM {table} WHERE id = :id"), {"id": row}).scalar()
    return dict(json.loads(str(found)))


# What a newer ailab, or a damaged disk, may have left in a column of JSON.
BROKEN_REQUESTS = {
    "an unknown value": lambda request: json.dumps(request | {"strategy": "fsdp", "workers": 2}),
    "another kind of value": lambda request: json.dumps(request | {"command": 7}),
    "nothing of it": lambda request: "{}",
    "a list": lambda request: "[]",
    "no JSON": lambda request: "\x00garbage{",
    "no UTF-8": lambda request: b"\xff\xfe\x80",
    "null": lambda request: "null",
}


@pytest.mark.parametrize("broken", BROKEN_REQUESTS.values(), ids=BROKEN_REQUESTS.keys())
def test_a_schedule_that_cannot_be_read_keeps_no_other_from_running(room: Room, broken: Any) -> None:
    wish = JobWish(command=["true"], cwd="/", every=60)
    bad, good = (schedules.add(room.store, wish, owner="ada", cpus=1) for _time in range(2))
    request = broken(request_of(room, "schedules", bad))
    sql(room.store, "UPDATE schedules SET request = :request WHERE id = :id", request=request, id=bad)
    schedules.submit_due(room.store, room.jobs)
    assert [job.owner for job in room.jobs.find()] == ["ada"], "the other has been submitted"
    assert [one["id"] for one in schedules.all_of(room.store)] == [good]
    assert met(room.store) == [f"schedules {bad}"]
    recorder_of_unreadable(room.store)()
    recorder_of_unreadable(room.store)()
    told = [one for one in events.newest(room.store, 20) if one["after"] == "unreadable"]
    assert [one["subject"] for one in told] == [f"schedules {bad}"]
    assert f"ailab stop schedule-{bad}" in told[0]["detail"]["remedy"]
    schedules.remove(room.store, bad)


def test_a_schedule_of_another_ailab_is_read_without_what_is_not_known(room: Room) -> None:
    known = schedules.add(room.store, JobWish(command=["true"], cwd="/", every=60), owner="ada", cpus=1)
    request = json.dumps(request_of(room, "schedules", known) | {"nice": 5, "gpu_kind": "H200"})
    sql(room.store, "UPDATE schedules SET request = :request", request=request)
    schedules.submit_due(room.store, room.jobs)
    assert len(room.jobs.find()) == 1 and met(room.store) == []


@pytest.mark.parametrize("column", ["every", "due", "last_job"])
def test_a_schedule_with_a_damaged_number_is_reported(room: Room, column: str) -> None:
    bad = schedules.add(room.store, JobWish(command=["true"], cwd="/", every=60), owner="ada", cpus=1)
    sql(room.store, f"UPDATE schedules SET {column} = 'soon'")
    schedules.submit_due(room.store, room.jobs)
    assert met(room.store) == [f"schedules {bad}"] and room.jobs.find() == []


def test_one_schedule_that_cannot_be_submitted_keeps_no_other(room: Room) -> None:
    gone = JobWish(command=["true"], cwd="/", every=60, after=["99"])  # type: ignore[list-item]
    schedules.add(room.store, gone, owner="ada", cpus=1)
    schedules.add(room.store, JobWish(command=["true"], cwd="/", every=60), owner="bob", cpus=1)
    with pytest.raises(Exception, match="99"):
        schedules.submit_due(room.store, room.jobs)
    assert [job.owner for job in room.jobs.find()] == ["bob"]


@pytest.mark.parametrize("broken", BROKEN_REQUESTS.values(), ids=BROKEN_REQUESTS.keys())
def test_a_job_that_cannot_be_read_waits_and_the_others_run(room: Room, broken: Any) -> None:
    bad, good = room.submit("pass"), room.submit("pass")
    later = room.jobs.submit([JobRequest(("true",), "/", after=(After(bad, "any"),))], owner="ada", actor="ada")[0]
    request = broken(request_of(room, "jobs", bad))
    sql(room.store, "UPDATE jobs SET request = :request WHERE id = :id", request=request, id=bad)
    room.until(good, JobState.done)
    assert room.jobs.states_of([bad, later]) == {bad: "queued", later: "queued"}, "it is not taken for ended"
    assert room.jobs.leases() == [] and [job.id for job in room.jobs.find()] == [later, good]
    with pytest.raises(Unreadable) as refused:
        room.jobs.get(bad)
    assert "newer ailab" in refused.value.remedy
    assert f"jobs {bad}" in met(room.store)


@pytest.mark.parametrize(
    "change",
    ["cpus = 'many'", "workers = 'all'", "strategy = 'fsdp'", "gpu_fraction = 'half'", "submitted_at = 'once'"],
)
def test_a_queued_row_with_a_damaged_column_stops_nothing(room: Room, change: str) -> None:
    bad, good = room.submit("pass"), room.submit("pass")
    sql(room.store, f"UPDATE jobs SET {change} WHERE id = :id", id=bad)
    room.until(good, JobState.done)
    assert room.jobs.states_of([bad]) == {bad: "queued"} and f"jobs {bad}" in met(room.store)


def test_a_job_in_a_state_that_is_not_known_keeps_what_it_holds(room: Room) -> None:
    """Its task may run: it is neither started again nor ended, and nobody is given what it has."""
    bad = room.submit(SLEEP)
    room.until(bad, JobState.running)
    sql(room.store, "UPDATE jobs SET state = 'suspended' WHERE id = :id", id=bad)
    room.until(room.submit("pass"), JobState.done)
    assert [lease.task for lease, _since in room.jobs.leases()] == [f"job-{bad}"]
    assert room.runtime.poll(f"job-{bad}").attempt == 1 and room.running() == [f"job-{bad}"]


def test_a_running_job_whose_request_is_damaged_goes_on(room: Room) -> None:
    bad = room.submit(SLEEP)
    room.until(bad, JobState.running)
    sql(room.store, "UPDATE jobs SET request = 'garbage' WHERE id = :id", id=bad)
    good = room.submit("pass")

    def ended() -> bool:
        with contextlib.suppress(Unreadable):
            room.worker.step()
        return room.jobs.states_of([good])[good] == JobState.done

    wait_for(ended, timeout=20, what="the good job")
    assert [lease.task for lease, _since in room.jobs.leases()] == [f"job-{bad}"]
    assert room.running() == [f"job-{bad}"]


@pytest.mark.parametrize("change", ["gpus = 'no'", "cpus = 'few'", "since = 'then'", "gpus = '[[1]]'"])
def test_a_lease_that_cannot_be_read_stops_nothing(room: Room, change: str) -> None:
    sql(
        room.store,
        "INSERT INTO leases VALUES ('endpoint-1', 'ada', 1, 1, '[]', 0.0)",
    )
    sql(room.store, f"UPDATE leases SET {change}")
    room.until(room.submit("pass"), JobState.done)
    assert met(room.store) == ["leases endpoint-1"]
    room.jobs.free("endpoint-1", room.worker.capacity)


def test_use_that_cannot_be_read_stops_nothing(room: Room) -> None:
    sql(room.store, "INSERT INTO usage VALUES ('ada', 'much', 0.0)")
    room.until(room.submit("pass"), JobState.done)
    assert room.jobs.leases() == []


def test_an_event_that_cannot_be_read_is_shown_without_its_detail(room: Room) -> None:
    room.submit("pass")
    sql(room.store, "UPDATE events SET detail = 'garbage'")
    sql(room.store, "INSERT INTO events VALUES (99, '2099-01-01', 'x', 'future', 'x', NULL, 'x', '[1]')")
    found = events.newest(room.store, 10)
    assert [one["detail"] for one in found] == [{}, {}]
    with room.store.engine.connect() as connection:
        assert events.details_of(connection, "x", "name") == set()


def test_code_is_not_collected_while_a_job_cannot_tell_what_it_needs(room: Room) -> None:
    bad = room.submit("pass")
    sql(room.store, "UPDATE jobs SET snapshot = 'garbage' WHERE id = :id", id=bad)
    with pytest.raises(Unreadable):
        room.jobs.codes()


def spec(task: str, code: str = SLEEP) -> TaskSpec:
    return TaskSpec(task, task, "service", (sys.executable, "-c", code), {"PATH": os.defpath}, "/")


@pytest.mark.parametrize(
    "change",
    [
        "spec = 'garbage'",
        "spec = '{}'",
        "spec = json_set(spec, '$.kind', 'pipeline')",
        "spec = json_set(spec, '$.command', 'sleep')",
        "failures = 'x'",
        "not_before = 'x'",
    ],
)
def test_a_task_that_cannot_be_read_is_left_alone_and_the_others_are_seen_to(tmp_path: Path, change: str) -> None:
    store, runtime = Store(tmp_path / "lab.db").open(), ProcessRuntime(tmp_path / "tasks")
    lab = Supervisor(store, runtime)
    for task in ("bad", "good"):
        lab.want(spec(task), owner="", actor="test")
    sql(store, f"UPDATE tasks SET {change} WHERE id = 'bad'")
    pid = runtime.poll("good").pid
    assert pid is not None
    os.kill(pid, 9)

    def again() -> bool:
        lab.reconcile()
        return runtime.poll("good").state == TaskState.running and runtime.poll("good").attempt == 2

    try:
        wait_for(again, timeout=10, what="the good task to be started again")
        assert runtime.poll("bad").attempt == 1 and runtime.poll("bad").state == TaskState.running
        lab.tasks()
        lab.revise(lambda one: one)
        assert "tasks bad" in met(store)
    finally:
        lab.stop_all()
        lab.close()
    assert runtime.poll("bad").state == TaskState.exited, "down stops it all the same"


@pytest.mark.parametrize("name", ["spec.json", "child.json", "exit.json"])
@pytest.mark.parametrize("content", ["", "garbage", "[]", '{"attempt": "1"}'])
def test_a_task_whose_files_cannot_be_read_is_unknown_and_never_started_twice(
    tmp_path: Path, name: str, content: str
) -> None:
    runtime = ProcessRuntime(tmp_path)
    started = runtime.start(spec("one", SLEEP if name != "exit.json" else "pass"))
    if name == "exit.json":
        wait_for(lambda: runtime.poll("one").state == TaskState.exited, timeout=10, what="the task to end")
    kept = (tmp_path / "one" / name).read_text()
    (tmp_path / "one" / name).write_text(content)
    assert runtime.poll("one").state in (TaskState.unknown, TaskState.exited if name == "exit.json" else "")
    if runtime.poll("one").state == TaskState.unknown:
        with pytest.raises(Unreadable):
            runtime.start(spec("one"))
    (tmp_path / "one" / name).write_text(kept)
    assert runtime.poll("one").attempt == started.attempt == 1
    (tmp_path / "one" / name).write_text(content)
    runtime.stop("one", grace=0.1)
    assert not (tmp_path / "one" / "lock").read_text() or not _is_running(started.pid)


def _is_running(pid: int | None) -> bool:
    try:
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), timeout=5, what="the process to end")
    except TimedOut:
        return True
    return False


def test_a_file_of_another_form_costs_only_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "job-1.json").write_text('{"run": "abc", "offset": "far", "future": 1}')
    assert Writer(None, tmp_path).written("job-1").run == ""  # type: ignore[arg-type]
    (tmp_path / "job-1.json").write_text('{"run": "abc", "offset": 7, "future": 1}')
    assert Writer(None, tmp_path).written("job-1").offset == 7  # type: ignore[arg-type]
    (tmp_path / "digests").write_text('{"digests": [1]}')
    assert KnownDigests(tmp_path / "digests").get("x", tmp_path.stat()) is None


def test_the_note_of_a_lab_that_cannot_be_read_is_kept_and_nothing_is_taken_away(tmp_path: Path) -> None:
    labs = Labs(MachinePaths(tmp_path))
    labs.register(tmp_path, "science")
    strange = tmp_path / "labs" / "0123.json"
    strange.write_text('{"folder": "/srv/lab"}')
    assert labs.known() == () and strange.exists()
    with pytest.raises(Unreadable, match=r"0123\.json"):
        labs.known(all_of_them=True)
