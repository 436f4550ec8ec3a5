"""What only the process runtime has: shims, the state that they keep in files, and what is made of it after a crash."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tried_tasks import FOREVER, Specs, until

from ailab.runtimes.base import TaskState
from ailab.runtimes.process import ProcessRuntime
from ailab.waiting import wait_for

spec = Specs(sys.executable)
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = 'import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(600)'
child = subprocess.Popen([sys.executable, '-c', code], start_new_session=True)
print(child.pid)
while True: time.sleep(0.1)
"""


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[ProcessRuntime]:
    made = ProcessRuntime(tmp_path / "tasks")
    yield made
    for task_id in made.tasks():
        made.stop(task_id, grace=0)


def test_tasks_with_a_limit_of_cpus_do_not_share_one(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """Whoever has started the other: a daemon, and the one after it."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one CPU")
    own = "import os, time; print(sorted(os.sched_getaffinity(0)), flush=True); time.sleep(600)"
    later = ProcessRuntime(tmp_path / "tasks")
    for number, starter in enumerate((runtime, later)):
        starter.start(replace(spec(own), id=f"limited-{number}", cpus=1))
    said = [
        wait_for(lambda task=task: list(runtime.logs(task)), timeout=15, what="its CPUs")
        for task in ("limited-0", "limited-1")
    ]
    assert said[0] != said[1]
    runtime.stop("limited-0", grace=0)
    later.start(replace(spec(own), id="limited-2", cpus=1))
    assert wait_for(lambda: list(runtime.logs("limited-2")), timeout=15, what="its CPU") == said[0]


def test_a_look_at_a_task_does_not_keep_its_shim_from_starting(runtime: ProcessRuntime, tmp_path: Path) -> None:
    """Whoever looks whether a shim lives holds its lock for a moment, which is long where the CPUs are busy."""
    folder = tmp_path / "tasks/one"
    folder.mkdir(parents=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    threading.Timer(0.3, os.close, [descriptor]).start()
    assert runtime.start(spec(FOREVER)).state == TaskState.running


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_killed_shim_takes_its_task_along_and_is_told(runtime: ProcessRuntime, tmp_path: Path) -> None:
    seen = runtime.start(spec(STUBBORN))
    grandchild = int(wait_for(lambda: next(runtime.logs("one"), None), timeout=10, what="output"))
    os.kill(int((tmp_path / "tasks/one/lock").read_text()), signal.SIGKILL)
    ended = until(runtime, TaskState.exited)
    assert ended.reason == "shim-killed" and ended.exit_status == 137
    assert seen.pid is not None and gone(seen.pid) and gone(grandchild)
    assert runtime.start(spec(FOREVER)).attempt == 2


def test_a_reused_pid_is_recognised_and_left_alone(runtime: ProcessRuntime, tmp_path: Path) -> None:
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


def test_a_reboot_is_told_from_a_crash(runtime: ProcessRuntime, tmp_path: Path) -> None:
    runtime.start(spec(FOREVER))
    folder = tmp_path / "tasks/one"
    runtime.stop("one")
    (folder / "exit.json").unlink()
    kept = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps(kept | {"boot": "another"}))
    assert runtime.poll("one").reason == "lost"


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
        told = re.search(r"^\[The disk was full: (\d+) bytes", "\n".join(full.logs("one")), re.MULTILINE)
        kept = sum(
            (small / "one" / name).stat().st_size for name in ("log", "log.1") if (small / "one" / name).exists()
        )
        assert told and 0 < 20000 * 101 - int(told[1]) <= kept
        full.stop("one")
    finally:
        subprocess.run(["umount", "-l", small], check=True)
