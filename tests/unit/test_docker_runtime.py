"""What only the docker runtime has: how closed a container is, who can reach it, and what is made of a crash."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import reachable_folder
from engines import needs_engine
from python_image import python_image

from ailab import engine
from ailab.errors import NotFound
from ailab.runtimes.base import Mount, Seen, TaskSpec, TaskState
from ailab.runtimes.docker import DockerRuntime
from ailab.waiting import wait_for

pytestmark = [pytest.mark.docker, needs_engine]
FOREVER = "import time\nprint('up')\nwhile True: time.sleep(0.1)"
PORT = 8000
SERVE = f"import socket\ns = socket.create_server(('0.0.0.0', {PORT}))\nprint('up')\nwhile True: s.accept()[0].close()"


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[DockerRuntime]:
    made = DockerRuntime(tmp_path / "tasks")
    yield made
    for task_id in made.tasks():
        made.stop(task_id, grace=0)
        made.remove(task_id)
    api, ours = engine.connect().api, {"label": f"org.ailab.tasks={made._whose}"}
    assert api.containers(all=True, filters=ours) == [] and api.networks(filters=ours) == []


def spec(code: str = FOREVER) -> TaskSpec:
    command = ("/usr/bin/python3", "-u", "-c", code)
    environment = {"PATH": os.defpath}
    return TaskSpec("one", "one", "job", command, environment, cwd="/", grace=3.0, image=python_image())


def first_line(runtime: DockerRuntime, task_id: str = "one") -> str:
    return wait_for(lambda: next(runtime.logs(task_id), None), timeout=10, what="output")


def inspected(runtime: DockerRuntime, task_id: str = "one") -> dict:
    return engine.connect().api.inspect_container(runtime._name(task_id))


def test_a_container_is_closed(runtime: DockerRuntime) -> None:
    runtime.start(replace(spec(), memory_bytes=2**28))
    seen = inspected(runtime)
    host = seen["HostConfig"]
    assert seen["Config"]["User"] not in ("", "0", "0:0") and not host["Privileged"]
    assert (host["CapDrop"], host["CapAdd"], host["SecurityOpt"]) == (["ALL"], None, ["no-new-privileges"])
    assert host["ReadonlyRootfs"] and host["Memory"] == host["MemorySwap"] == 2**28
    assert seen["Mounts"] == [] and host["NetworkMode"] not in ("default", "bridge", "host")
    status = runtime.exec("one", ["cat", "/proc/self/status"], timeout=10).stdout
    found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert runtime.exec("one", ["touch", "/usr/x"], timeout=10).status != 0
    assert runtime.exec("one", ["touch", "/tmp/x"], timeout=10).status == 0


def test_a_fork_bomb_stays_within_its_limit(runtime: DockerRuntime) -> None:
    code = """
import os, time
made = 0
try:
    while made < 1000:
        if os.fork() == 0: time.sleep(600)
        made += 1
except OSError as error: print(made, error.strerror)
time.sleep(600)
"""
    runtime.start(replace(spec(code), pids=50))
    made, _space, why = first_line(runtime).partition(" ")
    assert int(made) < 50 and "unavailable" in why
    assert runtime.usage("one").processes == int(made) + 1


def test_neighbours_cannot_reach_each_other_nor_the_engine(runtime: DockerRuntime) -> None:
    runtime.start(replace(spec(SERVE), ports=(PORT,)))
    runtime.start(replace(spec(), id="two"))
    first_line(runtime), first_line(runtime, "two")
    host, _colon, port = runtime.connect("one", PORT).rpartition(":")
    socket.create_connection((host, int(port)), timeout=5).close()
    networks = inspected(runtime)["NetworkSettings"]["Networks"].values()
    address, gateway = next((one["IPAddress"], one["Gateway"]) for one in networks)
    reach = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)"
    mine = runtime.exec("one", ["python3", "-c", reach, address, str(PORT)], timeout=10)
    assert mine.status == 0, "the probe itself works"
    for place, number in ((address, PORT), (gateway, int(port))):
        tried = runtime.exec("two", ["python3", "-c", reach, place, str(number)], timeout=10)
        assert tried.status != 0 and ("timed out" in tried.stderr or "refused" in tried.stderr), tried.stderr
    assert runtime.exec("two", ["test", "-e", "/var/run/docker.sock"], timeout=10).status == 1


def test_mounts(runtime: DockerRuntime) -> None:
    with reachable_folder() as folder:
        (folder / "file").write_text("kept")
        (folder / "file").chmod(0o666)
        shown, closed = Mount(str(folder), "/lab/data"), Mount(str(folder), "/lab/closed", read_only=True)
        runtime.start(replace(spec(), mounts=(shown, closed, Mount("", "/lab/own"))))
        assert runtime.exec("one", ["cat", "/lab/closed/file"], timeout=10).stdout == "kept"
        assert "Read-only" in runtime.exec("one", ["touch", "/lab/closed/file"], timeout=10).stderr
        for place in ("/lab/data/file", "/lab/own/file"):
            assert runtime.exec("one", ["touch", place], timeout=10).status == 0


def test_what_cannot_be_mounted_or_found_is_told(runtime: DockerRuntime, tmp_path: Path) -> None:
    seen = runtime.start(replace(spec(), mounts=(Mount(str(tmp_path / "gone"), "/data"),)))
    assert (seen.state, seen.exit_status) == (TaskState.exited, 126)
    assert str(tmp_path / "gone") in (seen.reason or "")
    seen = runtime.start(replace(spec(), image="ailab-test/none:none"))
    assert (seen.attempt, seen.exit_status) == (2, 126) and "ailab-test/none" in (seen.reason or "")


def test_a_port_stays_the_same_from_attempt_to_attempt(runtime: DockerRuntime) -> None:
    runtime.start(replace(spec(SERVE), ports=(PORT,)))
    before = runtime.connect("one", PORT)
    runtime.stop("one", grace=0)
    runtime.start(replace(spec(SERVE), ports=(PORT,)))
    assert runtime.connect("one", PORT) == before
    runtime.stop("one", grace=0)
    with socket.create_server(("127.0.0.1", int(before.rpartition(":")[2]))):
        assert runtime.start(replace(spec(SERVE), ports=(PORT,))).state == TaskState.running
        assert runtime.connect("one", PORT) != before, "that one is taken now"
    with pytest.raises(NotFound):
        runtime.connect("one", PORT + 1)


def test_output_of_earlier_attempts_is_kept(runtime: DockerRuntime) -> None:
    for number in (1, 2):
        runtime.start(spec(f"print('attempt {number}')\nimport time\ntime.sleep(600)"))
        wait_for(lambda number=number: f"attempt {number}" in list(runtime.logs("one")), timeout=10, what="output")
        runtime.stop("one", grace=0)
    assert list(runtime.logs("one")) == ["attempt 1", "attempt 2"]


def test_a_container_that_somebody_removed_is_lost(runtime: DockerRuntime) -> None:
    runtime.start(spec())
    engine.connect().api.remove_container(runtime._name("one"), force=True)
    ended = wait_for(lambda: _ended(runtime), timeout=10, what="the end")
    assert ended.reason == "lost"
    assert runtime.start(spec()).attempt == 2


def test_what_a_killed_starter_left_is_taken_over(runtime: DockerRuntime, tmp_path: Path) -> None:
    """Killed after the container started, before that was written down."""
    pid = runtime.start(spec()).pid
    (tmp_path / "tasks/one/child.json").unlink()
    seen = DockerRuntime(tmp_path / "tasks").poll("one")
    assert (seen.state, seen.pid) == (TaskState.running, pid)


def test_an_engine_that_does_not_answer_says_nothing_of_a_task(
    runtime: DockerRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = runtime.start(spec())
    with monkeypatch.context() as away:
        away.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
        alone = DockerRuntime(tmp_path / "tasks")
        assert alone.poll("one") == started, "the process is there, whatever the engine says"
        assert "no container engine" in (alone.silence() or "")
        os.kill(started.pid or 0, 9)
        wait_for(lambda: alone.poll("one").state == TaskState.unknown, timeout=10, what="the process to be gone")
        with pytest.raises(engine.EngineError):
            alone.start(spec())
    ended = wait_for(lambda: _ended(runtime), timeout=10, what="the end")
    assert (ended.reason, ended.attempt) == ("lost", 1)
    assert json.loads((tmp_path / "tasks/one/spec.json").read_text())["attempt"] == 1


def _ended(runtime: DockerRuntime) -> Seen | None:
    seen = runtime.poll("one")
    return seen if seen.state == TaskState.exited else None
