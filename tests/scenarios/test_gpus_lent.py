"""A workspace's own GPU on a whole lab: its kernels see it, a job that waits gets it, and it comes back. The machine's
GPU is made up; nothing computes on it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from browser import needs_chromium, opened_page, shoot
from conftest import CommandLine
from job_lines import submitted
from rooms import is_ready

from ailab.access import hub_client, kernel_client
from ailab.errors import AilabError
from ailab.settings_file import set_value
from ailab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.browser, needs_chromium]
DAEMON = Path(__file__).parent.parent / "daemon_with_gpus.py"
SEES = "import os; print('sees', os.environ.get('CUDA_VISIBLE_DEVICES'))"


@pytest.fixture
def lab(another: CommandLine) -> Iterator[CommandLine]:
    """A lab whose daemon takes the machine for one with a GPU, of which each workspace is to have one."""
    for key, value in (("own_gpus", 1), ("gpu_idle_minutes", 1), ("gpu_notice_minutes", 1)):
        set_value(another.paths.settings, "resources", key, value)
    another.up()
    daemon = psutil.Process(int((another.paths.run / "daemon.lock").read_text()))
    command, environment = daemon.cmdline(), daemon.environ()
    account = daemon.uids().real, daemon.gids().real
    daemon.send_signal(signal.SIGKILL)
    daemon.wait(10)
    place = command.index("-m")
    words = [*command[:place], str(DAEMON), "1", *command[place + 2 :]]
    source = str(DAEMON.parents[1] / "src")
    with (another.lab.parent / "daemon.log").open("wb") as log:
        made_up = subprocess.Popen(
            words,
            env=environment | {"PYTHONPATH": source},
            user=account[0] if os.geteuid() == 0 else None,
            group=account[1] if os.geteuid() == 0 else None,
            extra_groups=[] if os.geteuid() == 0 else None,
            cwd="/",
            stdout=log,
            stderr=log,
        )
    wait_for(lambda: is_ready(another), timeout=60, what=f"the daemon: {shlex.join(words)}")
    yield another
    another.run("down", check=False)
    made_up.kill()
    made_up.wait(10)


def sees(lab: CommandLine, user: str) -> str:
    """What a fresh kernel sees, once the workspace is there: it may just be started anew."""

    def look() -> str | None:
        try:
            return kernel_client.run_cell(lab.paths, lab.web, user, SEES).strip()
        except AilabError:
            return None

    return wait_for(look, timeout=60, what="a kernel", last=1)


def test_it_goes_to_a_job_and_comes_back(lab: CommandLine) -> None:
    opened = lab.json("open")
    user = opened["user"]
    # It was started by a daemon that knew of no GPU.
    hub_client.hub_call(lab.paths, "DELETE", f"/users/{user}/server")
    wait_for(lambda: lab.json("top")["leases"] == [], timeout=60, what="the workspace to be closed")
    hub_client.start_server(lab.paths, user)
    assert sees(lab, user) == "sees 0"
    assert [lease["gpus"] for lease in lab.json("top")["leases"]] == [[{"id": "0", "share": 1.0}]]
    with opened_page("idle-gpus") as page:
        page.goto(opened["url"])
        page.wait_for_selector("header nav a")
        page.goto(f"{opened['url'].partition('/hub/')[0]}/user/{user}/lab")
        page.wait_for_selector(".jp-Launcher, .jp-DirListing")
        job_words = ("--gpus", "1", "--grace", "1s", "--", "sh", "-c", "echo on $CUDA_VISIBLE_DEVICES; sleep 600")
        (job,) = submitted(lab, "--cwd", str(lab.lab / "notebooks"), *job_words)
        assert lab.json("jobs", "show", str(job))["state"] == "queued"
        page.locator(".Toastify__toast", has_text=f"Job {job} waits for a GPU").wait_for(timeout=150_000)
        shoot(page, "idle-gpus-notice")
        assert f"Job {job} waits" in lab.run("top").stdout

        def runs() -> bool:
            return bool(lab.json("jobs", "show", str(job))["state"] == "running")

        wait_for(runs, timeout=150, what="the job to have the GPU", last=1)
    assert sees(lab, user) == "sees"
    assert lab.run("logs", str(job)).stdout.strip() == "on 0"
    assert "Others hold this workspace's GPUs" in lab.run("top").stdout
    lab.run("stop", str(job))

    def is_back() -> bool:
        return any(lease["gpus"] for lease in lab.json("top")["leases"])

    wait_for(is_back, timeout=120, what="the GPU to be back", last=1)
    wait_for(lambda: sees(lab, user) == "sees 0", timeout=60, what="a kernel to see it", last=1)
    told = [event["after"] for event in lab.json("events", "--limit", "200") if "gpus-" in (event["after"] or "")]
    assert told[::-1] == ["gpus-asked", "gpus-lent", "gpus-returned"]
