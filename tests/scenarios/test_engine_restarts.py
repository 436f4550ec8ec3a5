"""A lab whose workspaces are containers, while their engine ends and comes back, and while they lose their GPUs."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nvidia_stand_in
import pytest
from conftest import UP_SECONDS, CommandLine, made_lab, reachable_folder
from engines import needs_engine, unique_name
from image_base import pin_base
from other_daemon import other_daemon
from rooms import kernel
from second_engine import SecondEngine, memory_to_spare, started_engine
from web_door import web_door

from ailab import engine
from ailab.access import kernel_client
from ailab.environments import lock
from ailab.errors import AilabError
from ailab.images import base
from ailab.settings_file import set_value
from ailab.waiting import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.lab, needs_engine]
STATE_SECONDS = 30
AGAIN_SECONDS = 90
# How often the daemon looks for what tasks have lost, once a minute where no test waits for it.
LOOK_SECONDS = 3
FOUND_SECONDS = 60
HAS_GPU = "open('/dev/nvidia0').close(); print('opened')"


@pytest.fixture(scope="module")
def running() -> Iterator[SecondEngine]:
    with reachable_folder() as folder:
        programs = nvidia_stand_in.programs(folder / "programs") if nvidia_stand_in.can_be_lost() else None
        with started_engine(folder, megabytes=memory_to_spare(4000), programs=programs) as made:
            yield made


@pytest.fixture(scope="module")
def lab(machine_home: Path, running: SecondEngine) -> Iterator[CommandLine]:
    """Up, with its containers on the second engine; the image is made by this machine's, which has a network."""
    with made_lab(machine_home, "science") as line:
        name = unique_name("restart-test")
        wanted = (("lab", "runtime", "docker"), ("lab", "name", name), ("tracking", "mlflow", False))
        for section, key, value in wanted:
            set_value(line.paths.settings, section, key, value)
        if running.programs is not None:
            set_value(line.paths.settings, "resources", "gpus", ["0"])
        pin_base(line)
        names = line.json("image", "build", timeout=UP_SECONDS)["names"]
        # With the base that it stands on: `up` then finds that there is nothing to build.
        digest = lock.read_lock(line.paths.lock).image.base
        packed = subprocess.Popen(["docker", "save", *names, base.reference_of(digest)], stdout=subprocess.PIPE)
        words = ["docker", "--host", running.address, "load"]
        subprocess.run(words, stdin=packed.stdout, check=True, capture_output=True)
        for name in names:
            engine.connect().images.remove(name, force=True)
        there = CommandLine(line.lab, line.environment | {"DOCKER_HOST": running.address})
        there.up()
        with other_daemon(there, "eager_daemon.py", str(LOOK_SECONDS)):
            yield there


def workspace(lab: CommandLine) -> Any:
    return next(task for task in lab.json("status")["tasks"] if task["kind"] == "workspace")


def cell(lab: CommandLine, code: str) -> str:
    """What it printed; empty while the workspace is not there."""
    try:
        return kernel_client.run_cell(web_door(lab, workspace(lab)["owner"]), code).strip()
    except AilabError:
        return ""


def until_it_computes(lab: CommandLine) -> None:
    wait_for(lambda: cell(lab, "print(41 + 1)") == "42", timeout=AGAIN_SECONDS, what="a cell")


def events_of(lab: CommandLine, task: str, since: str) -> list[tuple[str, str | None]]:
    """What happened to a task, and why, oldest first."""
    events = [one for one in lab.json("events", "--limit", "200") if one["subject"] == task and one["at"] > since]
    return [(one["after"], one["detail"].get("reason")) for one in reversed(events)]


def now_of(lab: CommandLine) -> str:
    return str(lab.json("events", "--limit", "1")[0]["at"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["ended", "killed"])
@pytest.mark.parametrize("options", [(), ("--live-restore",)], ids=["plain", "live-restore"])
def test_an_engine_that_ends_and_comes_back(
    lab: CommandLine, running: SecondEngine, number: signal.Signals, options: Sequence[str]
) -> None:
    if running.options != tuple(options):
        running.end()
        running.options = tuple(options)
        running.start()
    until_it_computes(lab)
    before, since = workspace(lab), now_of(lab)
    running.end(number)
    away = wait_for(lambda: lab.json("status")["note"], timeout=STATE_SECONDS, what="the note")
    assert "no container engine" in away and "taken over when the engine is back" in away
    # One that is asked to end stops its containers; unless they are to go on.
    state = "unknown" if number == signal.SIGTERM and not options else "running"
    wait_for(lambda: workspace(lab)["state"] == state, timeout=STATE_SECONDS, what=f"the workspace to be {state}")
    assert "exited" not in dict(events_of(lab, before["id"], since))
    running.start()
    until_it_computes(lab)
    after = workspace(lab)
    assert lab.json("status")["note"] == ""
    ends = [why for what, why in events_of(lab, before["id"], since) if what == "exited"]
    if options:
        assert (after["attempt"], after["started_at"], ends) == (before["attempt"], before["started_at"], [])
    else:
        assert (after["attempt"], after["before"], ends) == (before["attempt"] + 1, "lost", ["lost"])


def test_lost_gpus_are_told_and_are_back_as_soon_as_nothing_runs(lab: CommandLine, running: SecondEngine) -> None:
    if running.programs is None:
        pytest.skip("that lost GPUs come back is not tested: it needs cgroup v1")
    until_it_computes(lab)
    assert cell(lab, HAS_GPU) == "opened"
    before, since = workspace(lab), now_of(lab)
    open_one = kernel(lab, before["owner"])
    kernel_client.execute(web_door(lab, before["owner"]), open_one, "kept = 1")
    nvidia_stand_in.lose(before["pid"])
    assert cell(lab, HAS_GPU) == ""
    lost = wait_for(lambda: _faulty(lab), timeout=FOUND_SECONDS, what="the loss to be seen")
    assert (lost["fault"], lost["attempt"]) == ("gpus-lost", before["attempt"]) and "its GPUs" in lost["note"]
    assert "its GPUs" in " ".join(lab.run("status").stdout.split())
    assert events_of(lab, before["id"], since) == [("faulty", "gpus-lost")], "somebody has just worked in it"
    assert web_door(lab, before["owner"]).call("DELETE", f"/api/kernels/{open_one}")[0] == 204

    def again() -> bool:
        return bool(workspace(lab)["attempt"] > before["attempt"])

    wait_for(again, timeout=FOUND_SECONDS, what="the next attempt")
    wait_for(lambda: cell(lab, HAS_GPU) == "opened", timeout=AGAIN_SECONDS, what="the GPU")
    assert workspace(lab)["fault"] is None
    assert ("restarting", "gpus-lost") in events_of(lab, before["id"], since)


def _faulty(lab: CommandLine) -> Any:
    task = workspace(lab)
    return task if task["fault"] else None
