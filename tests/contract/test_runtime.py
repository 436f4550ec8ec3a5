"""What every runtime must hold, whatever it runs tasks with. A new runtime joins the list of fixtures."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ailab.errors import Conflict, NotFound
from ailab.runtimes.base import Runtime, Seen, TaskSpec, TaskState
from ailab.runtimes.process import ProcessRuntime
from ailab.waiting import wait_for

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(params=["process"])
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = ProcessRuntime(tmp_path / "tasks")
    yield made
    for task_id in made.tasks():
        made.stop(task_id, grace=0)


def spec(code: str, **changes: object) -> TaskSpec:
    values: dict[str, object] = {
        "id": "one",
        "name": "one",
        "kind": "job",
        "command": (sys.executable, "-u", "-c", code),
        "environment": {"PATH": os.defpath, "GREETING": "hello"},
        "cwd": "/",
        "grace": 5.0,
    }
    return TaskSpec.from_json(values | changes)


def until(runtime: Runtime, state: TaskState, task_id: str = "one") -> Seen:
    def reached() -> Seen | None:
        seen = runtime.poll(task_id)
        return seen if seen.state == state else None

    return wait_for(reached, timeout=15, what=f"{task_id} to be {state}")


def line(runtime: Runtime, starts_with: str = "") -> str:
    """The first line of the task's output."""

    return wait_for(
        lambda: next((text for text in runtime.logs("one") if text.startswith(starts_with)), None),
        timeout=10,
        what="output",
    )


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


FOREVER = "import time\nprint('up')\nwhile True: time.sleep(0.1)"
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = 'import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(600)'
child = subprocess.Popen([sys.executable, '-c', code], start_new_session=True)
print(child.pid)
while True: time.sleep(0.1)
"""


def test_unknown_ids_are_absent(runtime: Runtime) -> None:
    assert runtime.poll("nobody").state == TaskState.absent
    assert runtime.stop("nobody").state == TaskState.absent
    assert runtime.usage("nobody").processes == 0
    assert list(runtime.logs("nobody")) == []
    with pytest.raises(NotFound):
        runtime.connect("nobody", 1)


def test_a_task_runs_and_its_status_and_output_are_kept(runtime: Runtime) -> None:
    runtime.start(spec("import os; print(os.environ['GREETING'], os.getcwd()); raise SystemExit(3)"))
    seen = until(runtime, TaskState.exited)
    assert (seen.exit_status, seen.reason, seen.attempt) == (3, None, 1)
    assert seen.started_at is not None and seen.ended_at is not None and seen.started_at <= seen.ended_at
    assert list(runtime.logs("one")) == ["hello /"]
    assert Seen.from_json(json.loads(json.dumps(seen.to_json()))) == seen


def test_an_ended_task_starts_again_as_its_next_attempt(runtime: Runtime) -> None:
    for attempt in (1, 2):
        runtime.start(spec("print('ran')"))
        assert until(runtime, TaskState.exited).attempt == attempt
    assert list(runtime.logs("one", tail=1)) == ["ran"]


def test_a_signal_is_told_as_128_and_its_number(runtime: Runtime) -> None:
    runtime.start(spec("import os; os.kill(os.getpid(), 9)"))
    assert until(runtime, TaskState.exited).exit_status == 137


@pytest.mark.parametrize(("command", "status"), [("/no/such/program", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_run_says_why(runtime: Runtime, command: str, status: int) -> None:
    runtime.start(spec("", command=[command]))
    seen = until(runtime, TaskState.exited)
    assert seen.exit_status == status
    assert (seen.reason or "").startswith("cannot-start: ") and command in (seen.reason or "")


def test_starting_twice_starts_once(runtime: Runtime) -> None:
    first: list[Seen] = []
    starters = [threading.Thread(target=lambda: first.append(runtime.start(spec(FOREVER)))) for _starter in range(4)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert len({seen.pid for seen in first}) == 1


def test_stop_lets_a_task_end_by_itself(runtime: Runtime) -> None:
    code = "import signal,sys,time\nsignal.signal(15, lambda *_: sys.exit(7))\nprint('up')\nwhile True: time.sleep(0.1)"
    runtime.start(spec(code))
    line(runtime)
    seen = runtime.stop("one")
    assert (seen.state, seen.exit_status, seen.reason) == (TaskState.exited, 7, "stopped")
    assert runtime.stop("one") == seen


def test_stop_kills_what_will_not_end_and_all_that_it_started(runtime: Runtime) -> None:
    runtime.start(spec(STUBBORN))
    grandchild = int(line(runtime))
    assert runtime.stop("one", grace=0.3).exit_status == 137
    assert gone(grandchild)


def test_what_a_task_leaves_behind_ends_with_it(runtime: Runtime) -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)"
    runtime.start(spec(code))
    until(runtime, TaskState.exited)
    assert gone(int(line(runtime)))


def test_logs_are_followed_through_rotation_to_the_end(runtime: Runtime) -> None:
    code = "import time\nfor n in range(2000): print(f'{n:08d}' + 'x' * 92)\ntime.sleep(0.5); print('last')"
    runtime.start(spec(code, log_bytes=120_000))
    numbers = [text[:8] for text in runtime.logs("one", follow=True)]
    assert numbers[-1] == "last"
    assert numbers[:-1] == sorted(set(numbers[:-1])), "no line twice, none out of order"
    assert len(list(runtime.logs("one", tail=5))) == 5


def test_a_line_that_comes_in_parts_is_followed_as_one(runtime: Runtime) -> None:
    parts = [b"na\xc3", b"\xafve", b"\n", b"end"]
    runtime.start(spec(f"import os, time\nfor part in {parts}: os.write(1, part); time.sleep(0.3)"))
    assert list(runtime.logs("one", follow=True)) == ["naïve", "end"]


def test_exec_runs_beside_the_task(runtime: Runtime) -> None:
    runtime.start(spec(FOREVER))
    ran = runtime.exec("one", [sys.executable, "-c", "import os; print(os.environ['GREETING'])"], timeout=10)
    assert (ran.status, ran.stdout) == (0, "hello\n")
    runtime.stop("one")
    with pytest.raises(NotFound):
        runtime.exec("one", ["true"], timeout=10)


def test_connect_reaches_a_listening_task(runtime: Runtime) -> None:
    code = (
        "import socket\ns = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1])\n"
        "while True:\n c, _ = s.accept(); c.sendall(b'hi'); c.close()"
    )
    runtime.start(spec(code))
    host, _colon, port = runtime.connect("one", int(line(runtime))).rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        assert connection.recv(2) == b"hi"


def test_usage_counts_memory_and_processes(runtime: Runtime) -> None:
    runtime.start(spec("import time\nkept = bytearray(b'1' * 50_000_000)\nprint('up')\ntime.sleep(600)"))
    line(runtime)
    usage = runtime.usage("one")
    assert usage.memory_bytes > 50_000_000 and usage.processes == 1 and usage.cpu_seconds >= 0


def test_a_running_task_cannot_be_removed(runtime: Runtime) -> None:
    runtime.start(spec(FOREVER))
    with pytest.raises(Conflict):
        runtime.remove("one")
    runtime.stop("one")
    runtime.remove("one")
    assert runtime.tasks() == []


def test_memory_and_cpus_are_limited(runtime: Runtime) -> None:
    code = """
import os
print(len(os.sched_getaffinity(0)))
try: bytearray(400_000_000)
except MemoryError: print('refused')
"""
    runtime.start(spec(code, memory_bytes=200_000_000, cpus=1))
    until(runtime, TaskState.exited)
    assert list(runtime.logs("one")) == ["1", "refused"]


# What follows knows how the process runtime keeps its state.


def test_a_task_outlives_the_kill_of_who_started_it(tmp_path: Path) -> None:
    code = "import time\nprint('up')\ntime.sleep(1.5)\nprint('end')\nraise SystemExit(5)"
    starter = f"""
import json, sys, time
from pathlib import Path
from ailab.runtimes.base import TaskSpec
from ailab.runtimes.process import ProcessRuntime
seen = ProcessRuntime(Path({str(tmp_path / "tasks")!r})).start(TaskSpec.from_json(json.loads(sys.argv[1])))
print(seen.pid, flush=True); time.sleep(600)
"""
    argv = [sys.executable, "-c", starter, json.dumps(spec(code).to_json())]
    with subprocess.Popen(argv, env=os.environ | {"PYTHONPATH": str(SOURCE)}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        os.killpg(process.pid, signal.SIGKILL) if os.getpgid(process.pid) == process.pid else process.kill()
    adopted = ProcessRuntime(tmp_path / "tasks")
    assert adopted.poll("one").pid == pid
    assert until(adopted, TaskState.exited).exit_status == 5
    assert list(adopted.logs("one")) == ["up", "end"]


def test_a_killed_shim_takes_its_task_along_and_is_told(runtime: Runtime, tmp_path: Path) -> None:
    seen = runtime.start(spec(STUBBORN))
    grandchild = int(line(runtime))
    os.kill(int((tmp_path / "tasks/one/lock").read_text()), signal.SIGKILL)
    ended = until(runtime, TaskState.exited)
    assert ended.reason == "shim-killed" and ended.exit_status == 137
    assert seen.pid is not None and gone(seen.pid) and gone(grandchild)
    assert runtime.start(spec(FOREVER)).attempt == 2


def test_a_reused_pid_is_recognised_and_left_alone(runtime: Runtime, tmp_path: Path) -> None:
    runtime.start(spec(FOREVER))
    folder = tmp_path / "tasks/one"
    os.kill(int((folder / "lock").read_text()), signal.SIGKILL)
    with subprocess.Popen(["sleep", "600"]) as bystander:
        (folder / "lock").write_text(str(bystander.pid))
        (folder / "child.json").write_text(
            json.dumps(json.loads((folder / "child.json").read_text()) | {"pid": bystander.pid})
        )
        assert until(runtime, TaskState.exited).reason == "shim-killed"
        runtime.stop("one")
        assert bystander.poll() is None
        bystander.kill()


def test_a_reboot_is_told_from_a_crash(runtime: Runtime, tmp_path: Path) -> None:
    runtime.start(spec(FOREVER))
    folder = tmp_path / "tasks/one"
    runtime.stop("one")
    (folder / "exit.json").unlink()
    kept = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps(kept | {"boot": "another"}))
    assert runtime.poll("one").reason == "lost"


def test_secrets_stay_in_files_that_only_we_can_read(runtime: Runtime, tmp_path: Path) -> None:
    seen = runtime.start(spec(FOREVER, environment={"PATH": os.defpath, "TOKEN": "s3cret-token"}))
    assert "s3cret" not in Path(f"/proc/{seen.pid}/cmdline").read_text()
    holding = [
        path
        for path in (tmp_path / "tasks").rglob("*")
        if path.is_file() and "s3cret" in path.read_text(errors="replace")
    ]
    assert [path.name for path in holding] == ["spec.json"]
    assert holding[0].stat().st_mode & 0o077 == 0


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk is made with a small tmpfs, which needs root")
def test_a_full_disk_costs_output_not_the_task(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], check=True)
    try:
        full = ProcessRuntime(small)
        full.start(spec("for n in range(20000): print('x' * 100)\nraise SystemExit(4)"))
        seen = wait_for(
            lambda: full.poll("one") if full.poll("one").state == TaskState.exited else None, timeout=15, what="the end"
        )
        assert (seen.exit_status, seen.reason) == (4, None)
        full.stop("one")
    finally:
        subprocess.run(["umount", "-l", small], check=True)
