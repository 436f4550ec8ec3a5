"""`down` wins: over an `up` in each of its steps, a build, a daemon that has just begun or does not answer."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from strangers import NOBODY, needs_stranger

from ailab import bringup, files, imaging, shutdown
from ailab.lab import Lab
from ailab.paths import LabPaths, MachinePaths, private_folder
from ailab.runtimes import processes
from ailab.runtimes.base import TaskSpec
from ailab.settings import Settings
from ailab.waiting import wait_for


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(LabPaths(tmp_path / "lab"), MachinePaths(tmp_path / "machine"), Settings())
    made.paths.root.mkdir()
    made.make_private_folders()
    private_folder(made.paths.run)
    yield made
    shutdown.stop_lab(made)
    shutdown.clear_run_folder(made)


def a_task(name: str) -> TaskSpec:
    return TaskSpec(name, name, "service", (sys.executable, "-c", "import time; time.sleep(600)"), {}, "/")


def test_it_does_not_wait_for_who_prepares_or_builds(lab: Lab) -> None:
    lab.runtime.start(a_task("hub"))
    with bringup.one_at_a_time(lab, print):
        assert shutdown.stop_lab(lab) == ["hub"]
    assert shutdown.running_tasks(lab) == []


def test_a_build_holds_the_lab_only_while_it_is_planned(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[str, bool] = {}

    def is_held() -> bool:
        return files.is_locked(lab.paths.state / "up.lock")

    monkeypatch.setattr("ailab.engine.connect", lambda: None)
    monkeypatch.setattr(imaging, "make_plan", lambda *_: held.update(plan=is_held()))
    monkeypatch.setattr(imaging, "_ensure", lambda *_, **__: held.update(build=is_held()))
    imaging.build(lab, None, None, print)  # type: ignore[arg-type]  # neither is looked at
    assert held == {"plan": True, "build": False}


def test_what_up_does_is_interrupted_and_it_says_why(lab: Lab) -> None:
    mark = shutdown.stop_mark(lab.paths)
    threading.Timer(0.2, shutdown.stop_lab, [lab]).start()
    with pytest.raises(shutdown.Stopped, match="ailab down"), shutdown.unless_stopped(lab, mark):
        signal.sigtimedwait([], 20)
        pytest.fail("it went on")
    # Whatever fails because the lab is gone says the same.
    with pytest.raises(shutdown.Stopped), shutdown.unless_stopped(lab, shutdown.stop_mark(lab.paths)):
        shutdown.stop_lab(lab)
        lab.client.get("/api/status")


def test_an_up_that_was_typed_before_starts_no_daemon(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = shutdown.stop_mark(lab.paths)
    shutdown.stop_lab(lab)
    monkeypatch.setattr(bringup, "start_detached", lambda *_, **__: pytest.fail("a daemon was started"))
    with pytest.raises(shutdown.Stopped):
        bringup.ensure_daemon(lab, mark)


def test_a_daemon_that_had_just_begun_ends_by_itself(lab: Lab) -> None:
    lab.paths.settings.write_text("")
    words = [sys.executable, "-P", "-m", "ailab.daemon.main", "--lab", str(lab.paths.root)]
    mark = shutdown.stop_mark(lab.paths)
    shutdown.stop_lab(lab)
    late = subprocess.run([*words, "--mark", str(mark)], timeout=30, check=False)
    assert late.returncode == 3 and not lab.paths.database.exists()


def test_one_that_does_not_answer_is_killed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, time; from pathlib import Path; from ailab.daemon.main import hold; "
    code += "hold(Path(sys.argv[1])); print(flush=True); time.sleep(600)"
    words = [sys.executable, "-c", code, str(lab.paths.run / "daemon.lock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None and daemon.stdout.readline() == b"\n"
        lab.runtime.start(a_task("hub"))
        assert shutdown.stop_lab(lab) == ["hub"]
        assert daemon.wait(10) == -signal.SIGKILL


def test_a_task_whose_start_had_begun_does_not_run_on(lab: Lab) -> None:
    """The daemon was killed between a shim's first moment and its lock."""
    folder = lab.paths.tasks / "late"
    folder.mkdir()
    (folder / "spec.json").write_text("{}")
    code = "import sys, time; print(flush=True); time.sleep(600)"
    words = [sys.executable, "-c", code, "/ailab/runtimes/shim.py", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as shim:
        assert shim.stdout is not None and shim.stdout.readline() == b"\n"
        (folder / "spec.json").unlink()
        shutdown.stop_lab(lab)
        assert shim.wait(10) == -signal.SIGKILL


@needs_stranger
@pytest.mark.root
def test_a_process_of_another_account_that_calls_itself_a_shim_is_none(lab: Lab) -> None:
    """Else `down` would wait for it, and could not end it."""
    words = ["-c", "import time; time.sleep(600)", "/x/ailab/runtimes/shim.py", str(lab.paths.tasks / "x")]
    process = subprocess.Popen(["/usr/bin/python3", "-I", *words], user=NOBODY)
    try:
        wait_for(
            lambda: b"shim.py" in Path(f"/proc/{process.pid}/cmdline").read_bytes(), timeout=10, what="the process"
        )
        assert list(processes.shims(lab.paths.tasks)) == []
    finally:
        process.kill()
        process.wait(10)


def test_the_mark_changes_on_every_down(lab: Lab) -> None:
    marks = {shutdown.stop_mark(lab.paths)}
    for _time in range(3):
        shutdown.stop_lab(lab)
        marks.add(shutdown.stop_mark(lab.paths))
    assert len(marks) == 4
