"""The network of workers that connect to each other: asked for, told before the start, refused where there is none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from job_room import Room

from ailab.cli import job_words
from ailab.errors import UsageError
from ailab.jobs.gangs import Network, network
from ailab.jobs.model import JobRequest, JobState
from ailab.jobs.view import job_json
from ailab.jobs.wish import JobWish
from ailab.lab import Lab
from ailab.paths import LabPaths, MachinePaths
from ailab.runtimes import private_network
from ailab.settings import Settings
from ailab.working import refuse_strategy

# What a submission hears where one of the kernel's settings forbids namespaces. In a user namespace of our own
# the setting is for that namespace alone.
HEARS = """
import json, sys
from pathlib import Path
from ailab.errors import AilabError
from ailab.jobs.wish import JobWish
from ailab.lab import Lab
from ailab.paths import LabPaths, MachinePaths
from ailab.settings import Settings
from ailab.working import refuse_strategy
Path(sys.argv[1]).write_text("0")
lab = Lab(LabPaths(Path("/nowhere")), MachinePaths(Path("/nowhere")), Settings())
wish = JobWish(command=["python"], workers=2, strategy="multiworker")
refuse_strategy(lab, wish.model_copy(update={"insecure_ports": True}))
refuse_strategy(lab, wish.model_copy(update={"strategy": "mirrored"}))
try:
    refuse_strategy(lab, wish)
except AilabError as refused:
    print(json.dumps(refused.body()["error"]))
"""


def a_lab(folder: Path) -> Lab:
    return Lab(LabPaths(folder), MachinePaths(folder / "home"), Settings())


@pytest.mark.parametrize("name", ["max_user_namespaces", "max_net_namespaces"])
def test_where_the_kernel_forbids_it_the_submission_is_refused(name: str) -> None:
    assert shutil.which("unshare"), "util-linux"
    words = ["unshare", "--user", "--map-root-user", sys.executable, "-c", HEARS, f"/proc/sys/user/{name}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["kind"] == "no-private-network" and f"user.{name} = 0" in said["message"]
    assert f"sudo sysctl user.{name}=" in said["remedy"] and "--insecure-ports" in said["remedy"]


def test_where_nothing_says_why_the_reason_is_the_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shim = tmp_path / "shim.py"
    shim.write_text("import sys; sys.exit('Operation not permitted')")
    monkeypatch.setattr(private_network, "SHIM", shim)
    refused = private_network.refusal()
    assert refused is not None and "Operation not permitted" in refused.message
    assert "--insecure-ports" in refused.remedy


def test_only_workers_that_connect_to_each_other_have_a_network() -> None:
    assert network("", False) is network("mirrored", True) is None
    for strategy in ("multiworker", "ps", "horovod"):
        assert (network(strategy, False), network(strategy, True)) == (Network.private, Network.open)


def test_open_ports_are_asked_for_in_every_way(tmp_path: Path) -> None:
    wish = JobWish(command=["python"], workers=2, strategy="ps", insecure_ports=True)
    (request,) = wish.requests(cpus=1)
    assert request.insecure_ports and JobRequest.from_json(request.to_json()).insecure_ports
    assert not JobRequest.from_json({"command": ["python"], "cwd": "/", "strategy": "ps"}).insecure_ports
    with pytest.raises(UsageError, match="multiworker, ps, horovod"):
        refuse_strategy(a_lab(tmp_path), JobWish(command=["python"], insecure_ports=True))


def test_the_job_says_which_network_it_has(tmp_path: Path) -> None:
    with Room(tmp_path) as room:
        job = room.submit("pass", workers=2, strategy="multiworker", cpus=1)
        shown = job_json(room.until(job, JobState.done), {}, LabPaths(tmp_path))
        assert (shown["network"], shown["asked"]["insecure_ports"]) == ("private", False)
    assert "--insecure-ports" in job_words.about_network("private")
