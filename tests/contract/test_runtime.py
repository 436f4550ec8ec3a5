"""What every runtime must hold, whatever it runs tasks with. A new runtime joins the list of fixtures."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from conftest import free_port
from engines import needs_engine
from python_image import python_image
from tried_tasks import FOREVER, Specs, alive, line, stubborn, until

from ailab.errors import Conflict, NotFound
from ailab.paths import LabPaths
from ailab.runtimes.base import Capability, Limits, Runtime, Seen, TaskState
from ailab.runtimes.docker import DockerRuntime
from ailab.runtimes.process import ProcessRuntime
from ailab.waiting import wait_for

SOURCE = Path(__file__).parents[2] / "src"


RUNTIMES = [ProcessRuntime, pytest.param(DockerRuntime, marks=[pytest.mark.docker, needs_engine])]


@pytest.fixture(params=RUNTIMES, ids=lambda one: one.name)
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    made: Runtime = request.param(tmp_path / "tasks")
    yield made
    for task_id in made.tasks():
        made.stop(task_id, grace=0)
        made.remove(task_id)


@pytest.fixture
def spec(runtime: Runtime) -> Specs:
    if Capability.images in runtime.capabilities:
        return Specs("/usr/bin/python3", python_image())
    return Specs(sys.executable)


@pytest.fixture
def mark() -> str:
    return f"mark-{uuid.uuid4().hex}"


def test_unknown_ids_are_absent(runtime: Runtime) -> None:
    assert runtime.poll("nobody").state == TaskState.absent
    assert runtime.stop("nobody").state == TaskState.absent
    assert runtime.usage("nobody").processes == 0
    assert list(runtime.logs("nobody")) == []
    assert runtime.fault("nobody") is None
    with pytest.raises(NotFound):
        runtime.connect("nobody", 1)


def test_a_task_runs_and_its_status_and_output_are_kept(runtime: Runtime, spec: Specs) -> None:
    runtime.start(spec("import os; print(os.environ['GREETING'], os.getcwd()); raise SystemExit(3)"))
    seen = until(runtime, TaskState.exited)
    assert (seen.exit_status, seen.reason, seen.attempt) == (3, None, 1)
    assert seen.started_at is not None and seen.ended_at is not None and seen.started_at <= seen.ended_at
    assert list(runtime.logs("one")) == ["hello /"]
    assert Seen.from_json(json.loads(json.dumps(seen.to_json()))) == seen


def test_an_ended_task_starts_again_as_its_next_attempt(runtime: Runtime, spec: Specs) -> None:
    for attempt in (1, 2):
        runtime.start(spec("print('ran')"))
        assert until(runtime, TaskState.exited).attempt == attempt
    assert list(runtime.logs("one", tail=1)) == ["ran"]


def test_an_attempt_that_the_caller_counts_is_run_once(runtime: Runtime, spec: Specs) -> None:
    runtime.start(spec("print('ran')", attempt=3))
    assert until(runtime, TaskState.exited).attempt == 3
    assert runtime.start(spec("print('ran')", attempt=3)).state == TaskState.exited
    assert list(runtime.logs("one")) == ["ran"]
    runtime.start(spec("print('again')", attempt=5))
    assert until(runtime, TaskState.exited).attempt == 5 and list(runtime.logs("one")) == ["ran", "again"]


def gang(runtime: Runtime, spec: Specs, folder: Path, **changes: object) -> str:
    """Run a gang of two, of which the second listens on all addresses and the first asks it: what that hears."""
    site, port = runtime.site("job", LabPaths(folder)), free_port()
    place = site.open_peers if changes.get("open_ports") else site.peers
    listens = f"import socket; s = socket.create_server(('', {port})); c, _ = s.accept(); c.sendall(b'hello')"
    asks = f"""
import socket, time
for _try in range(100):
    try:
        print(socket.create_connection(({place.format(task="gang-1")!r}, {port}), 5).recv(10).decode(), flush=True)
        break
    except OSError:
        time.sleep(0.1)
"""
    runtime.start(spec(asks, id="gang-0", gang="gang", attempt=1, **changes))
    runtime.start(spec(listens, id="gang-1", gang="gang", attempt=1, **changes))
    until(runtime, TaskState.exited, "gang-0")
    return "\n".join(runtime.logs("gang-0"))


def test_a_gang_reaches_each_other(runtime: Runtime, spec: Specs, tmp_path: Path) -> None:
    assert runtime.no_private_network("job") is None
    assert gang(runtime, spec, tmp_path) == "hello"


def test_a_gang_with_open_ports_reaches_each_other(runtime: Runtime, spec: Specs, tmp_path: Path) -> None:
    assert gang(runtime, spec, tmp_path, open_ports=True) == "hello"


# Says which devices it sees and what it may do, and listens on all addresses.
LISTENS = """
import socket
s = socket.create_server(('', {port}))
with open('/proc/net/dev') as devices:
    print(*(line.split(':')[0].strip() for line in devices.readlines()[2:]))
with open('/proc/self/status') as status:
    print(*(line.split()[1] for line in status if line.startswith(('CapEff', 'CapBnd'))))
print('up')
while True: s.accept()
"""


def test_the_network_of_a_gang_is_private(runtime: Runtime, spec: Specs) -> None:
    """It has loopback alone, so nobody outside reaches it and it leads nowhere; and no capability comes with it."""
    port = free_port()
    runtime.start(spec(LISTENS.format(port=port), gang="one", attempt=1))
    wait_for(lambda: "up" in runtime.logs("one"), timeout=15, what="the task to listen")
    devices, capabilities, _up = runtime.logs("one")
    assert devices == "lo" and {int(word, 16) for word in capabilities.split()} == {0}
    addresses = {
        one.address for of_one in psutil.net_if_addrs().values() for one in of_one if one.family == socket.AF_INET
    }
    assert "127.0.0.1" in addresses
    for address in addresses:
        with closing(socket.socket()) as stranger:
            stranger.settimeout(5)
            # Not by a gateway, which may answer for any address: a bridge of another test may be gone by now.
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
            gone = errno.ENETUNREACH
            assert stranger.connect_ex((address, port)) in (errno.ECONNREFUSED, gone), address


def test_the_network_of_a_gang_outlives_each_of_its_tasks(runtime: Runtime, spec: Specs, tmp_path: Path) -> None:
    """Whichever ends first; and the next attempt has one as well."""
    place, port = runtime.site("job", LabPaths(tmp_path)).peers, free_port()
    serves = f"""
import socket
s = socket.create_server(('', {port}))
print('up')
while True: s.accept()[0].sendall(b'hello')
"""
    asks = f"import socket; print(socket.create_connection(({place!r}, {port}), 5).recv(10).decode())"
    for attempt in (1, 2):
        runtime.start(spec(FOREVER, id="gang-0", gang="gang", attempt=attempt))
        runtime.start(spec(serves, id="gang-1", gang="gang", attempt=attempt))
        ups = ["up"] * attempt
        wait_for(lambda: list(runtime.logs("gang-1")) == ups, timeout=15, what="the task to listen")  # noqa: B023
        runtime.stop("gang-0", grace=0)
        runtime.start(spec(asks, id="gang-2", gang="gang", attempt=attempt))
        until(runtime, TaskState.exited, "gang-2")
        assert list(runtime.logs("gang-2", tail=1)) == ["hello"]
        runtime.stop("gang-1", grace=0)


def test_a_signal_is_told_as_128_and_its_number(runtime: Runtime, spec: Specs) -> None:
    runtime.start(spec("import os; os.kill(os.getpid(), 9)"))
    assert until(runtime, TaskState.exited).exit_status == 137


@pytest.mark.parametrize(("command", "status"), [("/no/such/program", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_run_says_why(runtime: Runtime, spec: Specs, command: str, status: int) -> None:
    runtime.start(spec("", command=[command]))
    seen = until(runtime, TaskState.exited)
    assert seen.exit_status == status
    assert (seen.reason or "").startswith("cannot-start: ") and command in (seen.reason or "")


def test_starting_twice_starts_once(runtime: Runtime, spec: Specs) -> None:
    first: list[Seen] = []
    starters = [threading.Thread(target=lambda: first.append(runtime.start(spec(FOREVER)))) for _starter in range(4)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert len({seen.pid for seen in first}) == 1


def test_stop_lets_a_task_end_by_itself(runtime: Runtime, spec: Specs) -> None:
    code = "import signal,sys,time\nsignal.signal(15, lambda *_: sys.exit(7))\nprint('up')\nwhile True: time.sleep(0.1)"
    runtime.start(spec(code))
    line(runtime)
    seen = runtime.stop("one")
    assert (seen.state, seen.exit_status, seen.reason) == (TaskState.exited, 7, "stopped")
    assert runtime.stop("one") == seen


def test_stop_kills_what_will_not_end_and_all_that_it_started(runtime: Runtime, spec: Specs, mark: str) -> None:
    runtime.start(spec(stubborn(mark)))
    line(runtime)
    assert len(alive(mark)) >= 2
    assert runtime.stop("one", grace=0.3).exit_status == 137
    assert alive(mark) == []


def test_what_a_task_leaves_behind_ends_with_it(runtime: Runtime, spec: Specs, mark: str) -> None:
    code = f"import subprocess; subprocess.Popen(['sh', '-c', 'sleep 600; : {mark}'], start_new_session=True)"
    runtime.start(spec(code))
    until(runtime, TaskState.exited)
    assert alive(mark) == []


def test_logs_are_followed_through_rotation_to_the_end(runtime: Runtime, spec: Specs) -> None:
    code = "import time\nfor n in range(2000): print(f'{n:08d}' + 'x' * 92)\ntime.sleep(0.5); print('last')"
    runtime.start(spec(code, log_bytes=120_000))
    numbers = [text[:8] for text in runtime.logs("one", follow=True)]
    assert numbers[-1] == "last"
    assert numbers[:-1] == sorted(set(numbers[:-1])), "no line twice, none out of order"
    assert len(list(runtime.logs("one", tail=5))) == 5


def test_a_line_that_comes_in_parts_is_followed_as_one(runtime: Runtime, spec: Specs) -> None:
    parts = [b"na\xc3", b"\xafve", b"\n", b"end"]
    runtime.start(spec(f"import os, time\nfor part in {parts}: os.write(1, part); time.sleep(0.3)"))
    assert list(runtime.logs("one", follow=True)) == ["naïve", "end"]


def test_a_task_that_ends_while_its_output_is_asked_for_is_read_once(runtime: Runtime, spec: Specs) -> None:
    for number in range(5):
        name = f"short-{number}"
        runtime.start(spec("print('once')", id=name))
        watching = threading.Thread(target=until, args=(runtime, TaskState.exited, name))
        watching.start()
        while watching.is_alive():
            assert list(runtime.logs(name)) in ([], ["once"])
        assert list(runtime.logs(name, follow=True)) == ["once"]
        watching.join()


def test_exec_runs_beside_the_task(runtime: Runtime, spec: Specs) -> None:
    runtime.start(spec(FOREVER))
    ran = runtime.exec("one", [spec.python, "-c", "import os; print(os.environ['GREETING'])"], timeout=10)
    assert (ran.status, ran.stdout) == (0, "hello\n")
    runtime.stop("one")
    with pytest.raises(NotFound):
        runtime.exec("one", ["true"], timeout=10)


def test_a_terminal_is_one(runtime: Runtime, spec: Specs) -> None:
    runtime.start(spec(FOREVER))
    code = (
        "import os, sys\nprint(os.environ['GREETING'], sys.stdin.isatty(), input(), os.get_terminal_size(0).columns)\n"
        "os.kill(os.getpid(), 9) if input() == 'kill' else sys.exit(3)"
    )
    for answer, status in (("kill", 137), ("exit", 3)):
        with closing(runtime.terminal("one", [spec.python, "-c", code])) as terminal:
            terminal.resize(40, 132)
            terminal.write(b"typed\n")
            shown = b""
            while b"132" not in shown:
                shown += terminal.read()
            assert b"hello True typed 132" in shown
            terminal.write(answer.encode() + b"\n")
            while terminal.read():
                pass
            assert terminal.wait(10) == status
    runtime.stop("one")
    with pytest.raises(NotFound):
        runtime.terminal("one", ["true"])


def test_a_terminal_that_is_closed_ends_what_ran_there(runtime: Runtime, spec: Specs, mark: str) -> None:
    runtime.start(spec(FOREVER))
    terminal = runtime.terminal("one", [spec.python, "-c", f"print('up'); import time; time.sleep(600)  # {mark}"])
    assert b"up" in terminal.read()
    assert len(alive(mark)) == 1
    terminal.close()
    wait_for(lambda: not alive(mark), timeout=10, what="the command to end")


def test_connect_reaches_a_listening_task(runtime: Runtime, spec: Specs) -> None:
    port, listen = free_port(), runtime.site("job", LabPaths(Path("/lab"))).listen
    code = (
        f"import socket\ns = socket.create_server(({listen!r}, {port})); print('up')\n"
        "while True:\n c, _ = s.accept(); c.sendall(b'hi'); c.close()"
    )
    runtime.start(spec(code, ports=[port]))
    line(runtime)
    host, _colon, port = runtime.connect("one", port).rpartition(":")
    assert host == "127.0.0.1", "reached from this machine alone"
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        assert connection.recv(2) == b"hi"


def test_usage_counts_memory_and_processes(runtime: Runtime, spec: Specs) -> None:
    runtime.start(spec("import time\nkept = bytearray(b'1' * 50_000_000)\nprint('up')\ntime.sleep(600)"))
    line(runtime)
    usage = runtime.usage("one")
    assert usage.memory_bytes > 50_000_000 and usage.processes == 1 and usage.cpu_seconds >= 0


def test_a_task_that_is_whole_and_a_runtime_that_answers_have_nothing_to_tell(runtime: Runtime, spec: Specs) -> None:
    runtime.start(spec(FOREVER))
    assert runtime.fault("one") is None
    assert runtime.silence() is None


def test_a_running_task_cannot_be_removed(runtime: Runtime, spec: Specs) -> None:
    runtime.start(spec(FOREVER))
    with pytest.raises(Conflict):
        runtime.remove("one")
    runtime.stop("one")
    runtime.remove("one")
    assert runtime.tasks() == []


def test_memory_is_limited_and_the_neighbour_goes_on(runtime: Runtime, spec: Specs) -> None:
    runtime.start(spec(FOREVER, id="two"))
    code = "try: kept = b'1' * 400_000_000\nexcept MemoryError: print('refused')"
    runtime.start(spec(code, memory_bytes=200_000_000))
    seen = until(runtime, TaskState.exited)
    if Capability.limits_tasks in runtime.capabilities:
        assert (seen.exit_status, seen.reason, seen.kills) == (137, "out-of-memory", 1)
    else:
        assert list(runtime.logs("one")) == ["refused"]
    assert runtime.poll("two").state == TaskState.running


def test_a_killed_child_is_counted_while_the_task_goes_on(runtime: Runtime, spec: Specs) -> None:
    if Capability.limits_tasks not in runtime.capabilities:
        pytest.skip("its memory limit is each process's own")
    code = """
import subprocess, sys, time
subprocess.run([sys.executable, '-c', "kept = b'1' * 400_000_000"])
print('up')
time.sleep(600)
"""
    runtime.start(spec(code, memory_bytes=200_000_000))
    line(runtime)
    seen = runtime.poll("one")
    assert (seen.state, seen.kills, seen.reason) == (TaskState.running, 1, None)
    assert runtime.usage("one").memory_peak_bytes > 150_000_000


def test_cpus_are_limited(runtime: Runtime, spec: Specs) -> None:
    """Two busy processes with one CPU: CPU seconds for each second, measured."""
    code = """
import os, time
started = time.monotonic()
for _child in range(2):
    if os.fork() == 0:
        while time.monotonic() < started + 2: pass
        os._exit(0)
os.wait(), os.wait()
used = os.times()
print((used.children_user + used.children_system) / (time.monotonic() - started))
"""
    runtime.start(spec(code, cpus=1))
    until(runtime, TaskState.exited)
    assert 0.2 < float(line(runtime)) <= 1.15


def test_limits_are_read_back(runtime: Runtime, spec: Specs) -> None:
    runtime.start(spec(FOREVER, memory_bytes=200 * 2**20, cpus=1, pids=100, shm_bytes=64 * 2**20))
    line(runtime)
    limits = runtime.limits("one")
    assert (limits.cpus, limits.memory_bytes) == (1.0, 200 * 2**20)
    if Capability.limits_tasks in runtime.capabilities:
        assert (limits.pids, limits.shm_bytes) == (100, 64 * 2**20)
    runtime.stop("one")
    assert runtime.limits("one") == Limits()


def test_a_task_outlives_the_kill_of_who_started_it(runtime: Runtime, spec: Specs, tmp_path: Path) -> None:
    code = "import time\nprint('up')\ntime.sleep(1.5)\nprint('end')\nraise SystemExit(5)"
    starter = f"""
import json, sys, time
from pathlib import Path
from ailab.runtimes.base import TaskSpec
from {type(runtime).__module__} import {type(runtime).__name__} as Chosen
seen = Chosen(Path({str(tmp_path / "tasks")!r})).start(TaskSpec.from_json(json.loads(sys.argv[1])))
print(seen.pid, flush=True); time.sleep(600)
"""
    argv = [sys.executable, "-c", starter, json.dumps(spec(code).to_json())]
    with subprocess.Popen(argv, env=os.environ | {"PYTHONPATH": str(SOURCE)}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    adopted = type(runtime)(tmp_path / "tasks")
    assert adopted.poll("one").pid == pid
    assert until(adopted, TaskState.exited).exit_status == 5
    assert list(adopted.logs("one")) == ["up", "end"]


def test_secrets_stay_in_files_that_only_we_can_read(runtime: Runtime, spec: Specs, tmp_path: Path) -> None:
    seen = runtime.start(spec(FOREVER, environment={"PATH": os.defpath, "TOKEN": "s3cret-token"}))
    assert "s3cret" not in Path(f"/proc/{seen.pid}/cmdline").read_text()
    holding = [
        path
        for path in (tmp_path / "tasks").rglob("*")
        if path.is_file() and "s3cret" in path.read_text(errors="replace")
    ]
    assert [path.name for path in holding] == ["spec.json"]
    assert holding[0].stat().st_mode & 0o077 == 0
