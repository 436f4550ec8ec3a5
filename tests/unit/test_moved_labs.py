"""A lab that was moved while it ran is stopped from its new place; a copy of it never touches what it is a copy of."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_disk import small_disk

from ailab import place, shutdown
from ailab.access import services
from ailab.access.services import socket_url
from ailab.daemon.status import stopped_status
from ailab.lab import Lab
from ailab.paths import LabPaths, MachinePaths, private_folder
from ailab.runtimes.base import TaskSpec, TaskState
from ailab.runtimes.process import ProcessRuntime
from ailab.runtimes.processes import start_time
from ailab.settings import Settings

# Stands in for the daemon: it holds the lock in the run folder, and works in the lab's folder.
DAEMON = "import sys, time; from pathlib import Path; from ailab.daemon.main import hold; "
DAEMON += "hold(Path(sys.argv[1])); print(flush=True); time.sleep(600)"
FOREVER = TaskSpec("hub", "hub", "service", (sys.executable, "-c", "import time; time.sleep(600)"), {}, "/")
# Both kinds of run folder: in the lab, and in /tmp where its path would be too long for a socket.
NAMES = ("lab", "lab" * 16)


@pytest.fixture(params=NAMES, ids=("run-inside", "run-outside"))
def folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="mv-", dir="/tmp"))
    (made / request.param).mkdir()
    yield made / request.param
    shutil.rmtree(made)


def at(root: Path) -> Lab:
    return Lab(LabPaths(root), MachinePaths(root / "machine"), Settings())


def running(root: Path) -> tuple[Lab, subprocess.Popen[bytes], int]:
    """A lab with a daemon and a task; the pid of the task."""
    lab = at(root)
    lab.make_private_folders()
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, private_folder(lab.paths.run) / "daemon.lock"], stdout=subprocess.PIPE, cwd=root
    )
    assert daemon.stdout is not None and daemon.stdout.readline() == b"\n"
    place.note(lab.paths)
    code = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    spec = TaskSpec("hub", "hub", "service", (sys.executable, "-c", code + "time.sleep(600)"), {}, str(root))
    pid = lab.runtime.start(spec).pid
    assert pid is not None
    return lab, daemon, pid


def alive(pid: int) -> bool:
    return start_time(pid) is not None


def moved(lab: Lab) -> Lab:
    new = lab.paths.root.with_name("new")
    lab.paths.root.rename(new)
    return at(new)


def test_one_that_was_moved_is_seen_and_stopped(folder: Path) -> None:
    lab, daemon, pid = running(folder)
    here = moved(lab)
    was = shutdown.moved_while_running(here)
    assert was is not None and was.root == folder
    seen = stopped_status(here)
    assert seen["state"] == "degraded" and str(folder) in seen["note"] and "ailab down" in seen["note"]
    assert shutdown.stop_lab(here) == ["hub"]
    assert daemon.wait(10) == -signal.SIGKILL and not alive(pid)
    assert shutdown.moved_while_running(here) is None and stopped_status(here)["state"] == "stopped"
    # Its end was written down where the lab is now, and nothing came about at the old place.
    assert here.runtime.poll("hub").reason == "stopped" and not folder.exists()
    assert not LabPaths(folder).run.exists()


def test_a_start_at_the_new_place_stops_it_first(folder: Path) -> None:
    lab, daemon, pid = running(folder)
    here, said = moved(lab), []
    mark = shutdown.stop_mark(here.paths)
    shutdown.stop_moved(here, said.append)
    assert daemon.wait(10) == -signal.SIGKILL and not alive(pid) and str(folder) in said[0]
    assert shutdown.stop_mark(here.paths) == mark, "nobody has typed down"
    shutdown.stop_moved(here, said.append)
    assert len(said) == 1


def test_what_still_looks_at_the_old_place_concludes_and_makes_nothing(folder: Path) -> None:
    lab, daemon, pid = running(folder)
    here = moved(lab)
    assert lab.runtime.poll("hub").state == TaskState.unknown, "neither ended nor absent: nothing is started for it"
    with pytest.raises(FileNotFoundError):
        lab.runtime.start(TaskSpec("other", "other", "service", ("true",), {}, "/"))
    assert not folder.exists() and alive(pid)
    shutdown.stop_lab(here)
    daemon.wait(10)


def test_one_that_was_moved_back_is_as_before(folder: Path) -> None:
    lab, daemon, pid = running(folder)
    moved(lab).paths.root.rename(folder)
    assert shutdown.moved_while_running(at(folder)) is None and lab.runtime.poll("hub").state == TaskState.running
    assert shutdown.stop_lab(at(folder)) == ["hub"] and not alive(pid)
    daemon.wait(10)


def test_a_copy_leaves_the_other_one_alone(folder: Path) -> None:
    lab, daemon, pid = running(folder)
    copy = at(folder.with_name("copy"))
    subprocess.run(["cp", "-a", folder, copy.paths.root], check=True)
    assert shutdown.moved_while_running(copy) is None
    assert stopped_status(copy)["state"] == "stopped"
    assert copy.runtime.poll("hub").state == TaskState.exited
    assert shutdown.stop_lab(copy) == []
    # Started there, too: its own attempt ends nothing of the other's.
    copy.runtime.start(TaskSpec("hub", "hub", "service", (sys.executable, "-c", "input()"), {}, "/"))
    assert alive(pid) and daemon.poll() is None and lab.runtime.poll("hub").state == TaskState.running
    assert shutdown.stop_lab(lab) == ["hub"]
    daemon.wait(10)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_one_that_was_moved_to_another_disk(folder: Path) -> None:
    """Its files are others there, and its processes are left with a folder that was removed."""
    _lab, daemon, pid = running(folder)
    with small_disk(folder.with_name("disk"), 8) as disk:
        here = at(disk.folder / "lab")
        subprocess.run(["mv", folder, here.paths.root], check=True)
        # A new lab takes the old place: it has nothing to do with this.
        folder.mkdir()
        other = at(folder)
        other.make_private_folders()
        private_folder(other.paths.run)
        other_pid = other.runtime.start(FOREVER).pid or 0
        assert shutdown.moved_while_running(here) is not None
        shutdown.stop_lab(here)
        assert daemon.wait(10) and not alive(pid)
        assert shutdown.moved_while_running(here) is None
        assert alive(other_pid) and other.runtime.poll("hub").state == TaskState.running and other.paths.run.exists()
        assert shutdown.stop_lab(other) == ["hub"]
        shutdown.clear_run_folder(other)


def test_workspaces_ask_at_the_hub_of_where_the_lab_is(tmp_path: Path) -> None:
    """What the hub made for a workspace is kept, with the hub's socket as it was called then."""
    old, new = LabPaths(tmp_path / "old"), LabPaths(tmp_path / "new")
    made = {"JUPYTERHUB_API_URL": f"{socket_url(old.hub_socket)}/hub/api", "JUPYTERHUB_USER": "ada"}
    kept = services._hubs_variables(made, ProcessRuntime(new.tasks).site("workspace", new))
    assert kept == made | {"JUPYTERHUB_API_URL": f"{socket_url(new.hub_socket)}/hub/api"}
