"""A lab's disk that fills at any moment: afterwards all goes on by itself, no save is lost, and no job runs twice.

The check has one moment of each kind; the full sweep of 20 is marked `long`.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import UP_SECONDS, CommandLine, free_port, plain_environment, reachable_folder
from small_disk import SmallDisk, small_disk
from web_door import WebDoor, web_door

from ailab.errors import AilabError
from ailab.waiting import TimedOut, wait_for

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.serial]
SEED = 20261201
# After there is room again.
RECOVERY_SECONDS = 15.0
# A moment lies so many seconds after an action has begun; the disk then stays full for as long.
LONGEST_DELAY = 1.5
FULL_SECONDS = 2.0
ENDED = ("done", "failed", "stopped")


@dataclass
class Sweep:
    """A lab on a small disk, what it has accepted and saved, and `said`: a folder elsewhere in which jobs say that they
    run."""

    line: CommandLine
    disk: SmallDisk
    said: Path
    random: random.Random
    door: WebDoor
    accepted: list[int] = field(default_factory=list)
    saved: dict[str, str] = field(default_factory=dict)
    packages: list[str] = field(default_factory=lambda: ["six", "toml", "attrs", "idna", "tomli", "zipp"])

    def fill_while(self, action: Callable[[], None]) -> None:
        """Do `action`, and have the disk full from a moment of it on for a while. Returns once it has ended and there
        is room again."""
        failure: list[BaseException] = []

        def acting() -> None:
            try:
                action()
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=acting)
        thread.start()
        thread.join(self.random.uniform(0, LONGEST_DELAY))
        by_files = self.random.random() < 0.3
        until = time.monotonic() + FULL_SECONDS
        while time.monotonic() < until:
            (self.disk.use_up_files if by_files else self.disk.fill)()
            thread.join(0.1)
        self.disk.free()
        freed = time.monotonic()
        self.expect_recovery(freed)
        thread.join(UP_SECONDS)
        if failure:
            raise failure[0]

    def expect_recovery(self, freed: float) -> None:
        """The lab is ready, unless it was down, and every accepted job has ended."""
        jobs: dict[int, dict[str, Any]] = {}

        def is_well() -> bool:
            with contextlib.suppress(AssertionError, ValueError):
                jobs.update({job["id"]: job for job in self.line.json("jobs", "--limit", "500")["jobs"]})
                return self.is_ready() and all(jobs.get(one, {}).get("state") in ENDED for one in self.accepted)
            return False

        left = freed + RECOVERY_SECONDS - time.monotonic()
        try:
            wait_for(is_well, timeout=left, what="the lab to go on")
        except TimedOut:
            pytest.fail(self.line.run("status", check=False).stdout)

    def is_ready(self) -> bool:
        return bool(self.line.json("status")["state"] == "ready")

    # What people do while the disk fills.

    def run(self) -> None:
        number = len(self.accepted) + self.random.randrange(10**6)
        self.submit(f"echo {number} >> {self.said}/runs")

    def end_of_job(self) -> None:
        number = len(self.accepted) + self.random.randrange(10**6)
        self.submit(f"echo {number} >> {self.said}/runs; sleep 1; head -c 300000 /dev/zero")

    def submit(self, script: str) -> None:
        done = self.line.run("run", "--json", "--", "sh", "-c", script, check=False)
        if done.returncode == 0:
            self.accepted += json.loads(done.stdout)["jobs"]
        else:
            assert names_the_disk(done)

    def save(self) -> None:
        for number in range(12):
            text = json.dumps({"n": number, "of": self.random.random(), "more": "x" * 40_000})
            cells = [{"cell_type": "code", "source": text, "metadata": {}, "outputs": [], "execution_count": None}]
            content = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
            name = f"n{number % 2}.ipynb"
            body = {"type": "notebook", "format": "json", "content": content}
            with contextlib.suppress(OSError, AilabError):
                status, _answer = self.door.call("PUT", f"/api/contents/notebooks/{name}", body)
                if status in (200, 201):
                    self.saved[name] = text
            self.check_saves()
            time.sleep(0.1)

    def env_add(self) -> None:
        package, lab = self.packages.pop(), self.line.lab
        before = [(lab / name).read_text() for name in ("lab.toml", "lab.lock")]
        done = self.line.run("env", "add", package, timeout=UP_SECONDS, check=False)
        if done.returncode:
            assert names_the_disk(done)
            assert [(lab / name).read_text() for name in ("lab.toml", "lab.lock")] == before
        else:
            assert package in (lab / "lab.toml").read_text() and package in (lab / "lab.lock").read_text()

    def check_saves(self) -> None:
        for name, text in self.saved.items():
            notebook = json.loads((self.line.lab / "notebooks" / name).read_text())
            assert "".join(notebook["cells"][0]["source"]) == text, "the last save that succeeded"

    def check_jobs(self) -> None:
        file = self.said / "runs"
        ran = Counter(file.read_text().split() if file.exists() else [])
        assert set(ran.values()) <= {1}, "no job runs twice"
        ends = Counter(
            event["subject"]
            for event in self.line.json("events", "--limit", "1000")
            if event["kind"] == "job" and event["after"] in ENDED
        )
        assert ends == Counter(f"job-{job}" for job in self.accepted)


def names_the_disk(done: subprocess.CompletedProcess[str]) -> bool:
    said = done.stdout + done.stderr
    named = "disk is full" in said or "no inodes left" in said or '"disk-full"' in said
    assert named and "bug" not in said and "Internal Server Error" not in said, said
    return named


@pytest.fixture
def sweep(machine_home: Path) -> Iterator[Sweep]:
    with reachable_folder() as folder, small_disk(folder / "disk", 48, files=4096) as disk:
        said = folder / "said"
        said.mkdir()
        said.chmod(0o777)
        line = CommandLine(disk.folder / "lab", plain_environment("/root", AILAB_HOME=str(machine_home)))
        line.run("init", str(line.lab), "--stack", "science", "--port", str(free_port()), timeout=UP_SECONDS)
        try:
            up = line.up()
            yield Sweep(line, disk, said, random.Random(SEED), web_door(line, up["login"]["user"]))
        finally:
            disk.free()
            line.run("down", check=False)


def test_one_moment_of_each_kind(sweep: Sweep) -> None:
    for action in (sweep.run, sweep.end_of_job, sweep.save):
        sweep.fill_while(action)
    assert sweep.saved
    sweep.check_saves()
    sweep.check_jobs()


def test_up_on_a_full_disk_says_so_and_later_works(sweep: Sweep) -> None:
    sweep.line.run("down")
    sweep.disk.fill()
    began = time.monotonic()
    assert names_the_disk(sweep.line.run("up", check=False)) and time.monotonic() - began < 20
    assert sweep.line.json("status")["state"] == "stopped"
    sweep.disk.free()
    sweep.line.up()


@pytest.mark.long
def test_twenty_moments(sweep: Sweep) -> None:
    actions = [sweep.run, sweep.end_of_job, sweep.save, sweep.env_add]
    for number in range(16):
        sweep.fill_while(actions[number % 4])
    for _number in range(4):
        sweep.line.run("down")
        began = subprocess.Popen(
            [sweep.line.program, "--lab", sweep.line.lab, "up"],
            env=sweep.line.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        time.sleep(sweep.random.uniform(0, 6))
        sweep.disk.fill()
        said, _none = began.communicate(timeout=60)
        sweep.disk.free()
        freed = time.monotonic()
        if began.returncode:
            names_the_disk(subprocess.CompletedProcess([], 1, said, ""))
        if sweep.line.json("status")["state"] == "stopped":
            # It had not come so far as to start it.
            sweep.line.up()
        sweep.expect_recovery(freed + (UP_SECONDS if not sweep.is_ready() else 0))
    sweep.check_saves()
    sweep.check_jobs()
