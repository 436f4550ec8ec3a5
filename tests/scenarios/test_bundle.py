"""A lab in one file, and the same lab from it where there is no network at all; with TensorFlow in the long check."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import UP_SECONDS, CommandLine, free_port, made_lab, plain_environment, reachable_folder
from job_lines import ended, submitted
from mlflow_runs import closed_run

NAMESPACE = f"ailab{os.getpid()}"
pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None,
        reason="a network namespace without routes needs root and iproute2 (apt-get install iproute2)",
    ),
]


@pytest.fixture(scope="module", params=["science", pytest.param("tensorflow-2.9", marks=pytest.mark.long)])
def stack(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def bundled(machine_home: Path, stack: str) -> Iterator[tuple[Path, Any]]:
    """A bundle, and the fingerprint of the lab that it was made from."""
    with made_lab(machine_home, stack) as line, reachable_folder() as folder:
        settings = line.lab / "lab.toml"
        # Without the CUDA libraries, which are 1.7 GB more.
        settings.write_text(settings.read_text().replace('gpu = "auto"', 'gpu = "off"'))
        (line.lab / "notebooks" / "mine.ipynb").write_text("{}")
        file = folder / "lab.bundle"
        made = json.loads(line.run("bundle", "create", str(file), "--json", timeout=UP_SECONDS).stdout)
        assert made["bytes"] == file.stat().st_size and made["stack"] == stack
        refused = line.run("bundle", "create", str(file), check=False)
        assert refused.returncode == 1 and "is there already" in refused.stderr
        yield file, line.json("env", "fingerprint")


@pytest.fixture(scope="module")
def nowhere() -> Iterator[tuple[str, ...]]:
    """Words before a command that runs where loopback is all there is."""
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        subprocess.run(["ip", "-n", NAMESPACE, "link", "set", "lo", "up"], check=True)
        routes = subprocess.run(["ip", "-n", NAMESPACE, "route"], check=True, capture_output=True).stdout
        assert routes == b""
        yield ("ip", "netns", "exec", NAMESPACE)
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=False)


@pytest.fixture(scope="module")
def bare(bundled: tuple[Path, Any], nowhere: tuple[str, ...]) -> Iterator[CommandLine]:
    """A machine with nothing but the bundle: an empty AILAB_HOME and HOME, no Python but the system's, no network."""
    with reachable_folder() as folder:
        subprocess.run(["tar", "xf", bundled[0], "-C", folder, "program"], check=True)
        environment = plain_environment(folder / "home", AILAB_HOME=str(folder / "machine"))
        environment["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
        line = CommandLine(folder / "lab", environment, folder / "program" / "ailab", nowhere)
        try:
            yield line
        finally:
            line.run("down", check=False)


def test_the_same_lab_without_a_network(bundled: tuple[Path, Any], bare: CommandLine, stack: str) -> None:
    file, fingerprint = bundled
    installed = json.loads(
        bare.bare("bundle", "install", str(file), str(bare.lab), "--json", timeout=UP_SECONDS).stdout
    )
    assert installed["lab"] == str(bare.lab) and installed["generation"]
    assert (bare.lab / "notebooks" / "mine.ipynb").read_text() == "{}"
    up = json.loads(bare.run("up", "--port", str(free_port()), "--json", timeout=UP_SECONDS).stdout)
    assert up["state"] == "ready" and up["verified"]["ok"]
    assert stack == "science" or up["verified"]["tensorflow"].startswith("2.9.")
    assert bare.json("verify")["matmul"] == [[1.0, 3.0], [3.0, 7.0]]
    assert bare.json("env", "verify")["ok"]
    there = bare.lab / "there.json"
    there.write_text(json.dumps(fingerprint))
    there.chmod(0o644)
    assert bare.run("env", "compare", str(there), check=False).stdout == "same\n"
    # MLflow may be on its way at this moment.
    assert {task["account"] for task in bare.json("status")["tasks"] if task["state"] == "running"} == {"ailab"}


def test_a_job_there_is_a_run_of_mlflow_too(bare: CommandLine) -> None:
    (job,) = submitted(
        bare, "--cwd", str(bare.lab / "notebooks"), "--name", "offline", "--", "python", "-c", "print(1)"
    )
    assert ended(bare, job)["state"] == "done", bare.run("logs", str(job)).stdout
    run = closed_run(bare, f"tags.`ailab.job` = '{job}'")
    assert (run["info"]["status"], run["info"]["run_name"]) == ("FINISHED", "offline")


def test_done_twice_it_repairs_and_keeps_what_is_mine(bundled: tuple[Path, Any], bare: CommandLine) -> None:
    """Without a network, a damaged generation is built anew from the bundle's wheels."""
    notebook = bare.lab / "notebooks" / "mine.ipynb"
    notebook.write_text('{"mine": 1}')
    bare.bare("bundle", "install", str(bundled[0]), str(bare.lab), timeout=UP_SECONDS)
    assert notebook.read_text() == '{"mine": 1}'
    (current,) = (one for one in bare.json("env", "list") if one["current"])
    (damaged,) = Path(current["folder"]).glob("lib/python3.*/site-packages/pandas/__init__.py")
    damaged.write_text("broken")
    assert bare.run("env", "verify", check=False).returncode == 1
    bare.run("env", "build", "--again", timeout=UP_SECONDS)
    assert bare.json("env", "verify")["ok"]


def test_another_lab_there_is_not_touched(bundled: tuple[Path, Any], bare: CommandLine) -> None:
    lock = bare.lab / "lab.lock"
    before = lock.read_text()
    lock.write_text(before + "# mine\n")
    refused = bare.bare("bundle", "install", str(bundled[0]), str(bare.lab), check=False)
    assert refused.returncode == 1 and "not the bundle's" in refused.stderr
    assert lock.read_text() == before + "# mine\n"
    lock.write_text(before)


def test_a_bundle_that_was_cut_off_changes_nothing(bundled: tuple[Path, Any], bare: CommandLine) -> None:
    short = bundled[0].with_name("short.bundle")
    with bundled[0].open("rb") as whole, short.open("wb") as cut:
        cut.write(whole.read(10**7))
    refused = bare.bare("bundle", "install", str(short), str(bare.lab.with_name("other")), check=False)
    assert refused.returncode == 1 and "cut off" in refused.stderr and "Traceback" not in refused.stderr
    assert not bare.lab.with_name("other").exists()
