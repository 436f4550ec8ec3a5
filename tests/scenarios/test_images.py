"""A lab as an image, on a real engine: built, run as anybody with nothing allowed, and the same again."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import UP_SECONDS, CommandLine, free_port, made_lab, reachable_folder
from engines import container, log, needs_engine, unique_name
from image_base import pin_base

from ailab import engine
from ailab.environments.lock import read_lock
from ailab.environments.lock_file import Package
from ailab.settings_file import set_value
from ailab.waiting import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.tensorflow, needs_engine]
UID = 4321
HARDENED = {
    "user": f"{UID}:{UID}",
    "read_only": True,
    "tmpfs": {"/tmp": "exec,mode=1777"},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "mem_limit": "4g",
    "memswap_limit": "4g",
    "pids_limit": 512,
}


@pytest.fixture(scope="module")
def client() -> Any:
    return engine.connect()


@pytest.fixture(scope="module")
def lab(machine_home: Path) -> Iterator[CommandLine]:
    with made_lab(machine_home, "tensorflow-2.9") as line:
        set_value(line.paths.settings, "lab", "name", unique_name("image-test"))
        pin_base(line)
        yield line


@pytest.fixture(scope="module")
def built(lab: CommandLine, client: Any) -> Iterator[Any]:
    document = lab.json("image", "build", timeout=UP_SECONDS)
    yield document
    for name in document["names"]:
        client.images.remove(name, force=True)


@pytest.fixture(scope="module")
def running(built: Any, client: Any) -> Iterator[tuple[Any, int, Path]]:
    """The image in a container that may do nothing and has one CPU: it, its port here, and its notebooks here."""
    port = free_port()
    with reachable_folder() as notebooks:
        os.chown(notebooks, UID, UID)
        options = HARDENED | {"nano_cpus": 10**9, "ports": {"8888/tcp": ("127.0.0.1", port)}}
        options |= {"volumes": {str(notebooks): {"bind": "/lab/notebooks", "mode": "rw"}}}
        with container(client, built["names"][0], **options) as made:
            wait_for(lambda: "Proven" in log(made) or not _runs(made), timeout=180, what="the lab to be ready")
            assert _runs(made), log(made)
            yield made, port, notebooks


def _runs(made: Any) -> bool:
    made.reload()
    return bool(made.status == "running")


def _exec(made: Any, command: str) -> tuple[int, str]:
    """A command's status and standard output."""
    status, (output, _errors) = made.exec_run(["sh", "-c", command], demux=True)
    return status, (output or b"").decode()


def test_nothing_is_built_where_nothing_has_changed(lab: CommandLine, built: Any) -> None:
    assert built["new"] is True
    again = lab.json("image", "build")
    assert again["new"] is False and again["id"] == built["id"]


def test_it_runs_as_anybody_with_nothing_allowed(running: tuple[Any, int, Path]) -> None:
    made, port, notebooks = running
    said = log(made)
    assert "http://" in said and re.search(r"Password +\w+-", said), said
    assert "TensorFlow 2.9.3" in said
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/hub/login", timeout=10) as page:
        assert page.status == 200
    welcome = notebooks / "welcome.ipynb"
    assert (welcome.stat().st_uid, welcome.stat().st_gid) == (UID, UID)
    assert _exec(made, "id -un")[1].strip() == "ailab"
    status, checked = _exec(made, "ailab status --check --json")
    assert status == 0 and json.loads(checked)["kernel"] == "42", checked
    status, verified = _exec(made, "ailab env verify --json")
    assert status == 0 and json.loads(verified)["ok"], verified


def test_a_kernel_is_told_of_the_containers_cpus_and_the_status_of_its_memory(running: tuple[Any, int, Path]) -> None:
    made, _port, _notebooks = running
    cell = (
        "from pathlib import Path\nfrom ailab.access.kernel_client import run_cell\nfrom ailab.lab import Lab\n"
        "from ailab.access.workspace_client import WorkspaceServer\n"
        "code = \"import os; print(*(os.environ[f'{name}_NUM_THREADS'] for name in ('OMP', 'MKL')))\"\n"
        "print(run_cell(WorkspaceServer.of(Lab.open(Path('/lab')).runtime, 'USER'), code), end='')"
    )
    status = json.loads(_exec(made, "ailab status --json")[1])
    assert status["machine"] == {"cpus": 1, "memory_bytes": 4 * 2**30}
    user = next(task["owner"] for task in status["tasks"] if task["kind"] == "workspace")
    words = shlex.join(["/opt/ailab/control/current/bin/python", "-c", cell.replace("USER", user)])
    assert _exec(made, words) == (0, "1 1\n")


def test_health_is_true_only_while_a_kernel_can_start(running: tuple[Any, int, Path]) -> None:
    made, _port, _notebooks = running
    words = made.image.attrs["Config"]["Healthcheck"]["Test"][1:]
    assert made.exec_run(words).exit_code == 0
    made.exec_run(["sh", "-c", "kill -STOP $(cat /lab/.ailab/run/daemon.lock)"])
    began = time.monotonic()
    try:
        assert made.exec_run(words).exit_code == 1
        assert time.monotonic() - began < 25, "the engine takes the check for failed after 30 s, and does not say why"
    finally:
        made.exec_run(["sh", "-c", "kill -CONT $(cat /lab/.ailab/run/daemon.lock)"])


def test_a_port_scan_finds_the_published_port_and_the_container_has_no_privilege(
    running: tuple[Any, int, Path], client: Any
) -> None:
    made, _port, _notebooks = running
    made.reload()
    address = next(iter(made.attrs["NetworkSettings"]["Networks"].values()))["IPAddress"]
    assert _open_ports(address) == [8888]
    seen, host = made.attrs, made.attrs["HostConfig"]
    assert seen["Config"]["User"] == f"{UID}:{UID}"
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["Privileged"]
    assert not any("docker.sock" in mount["Source"] for mount in seen["Mounts"])
    assert _exec(made, "grep CapEff /proc/1/status")[1].split() == ["CapEff:", "0" * 16]
    assert "sock" not in _exec(made, "ls /var/run /run 2>/dev/null")[1]
    assert client.images.get(made.image.id).attrs["Config"]["User"] not in ("", "0", "root")


def _open_ports(address: str) -> list[int]:
    found = []
    for port in range(1, 65536):
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((address, port)) == 0:
                found.append(port)
    return found


def test_the_same_fingerprint_inside_and_in_the_lock(lab: CommandLine, running: tuple[Any, int, Path]) -> None:
    made, _port, _notebooks = running
    lab.run("env", "build", timeout=UP_SECONDS)
    here = lab.json("env", "fingerprint")
    inside = json.loads(_exec(made, "ailab env fingerprint --json")[1])
    assert inside["packages"] == here["packages"] and inside["lock"] == here["lock"]
    assert inside["interpreter"] == here["interpreter"]


def test_what_the_image_is_cannot_be_changed_from_within(running: tuple[Any, int, Path]) -> None:
    status, said = _exec(running[0], "ailab env add tabulate 2>&1")
    assert status == 1 and "This lab runs in an image" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"user": "0"}, "does not run as root"),
        ({"volumes": {"CLOSED": {"bind": "/lab/notebooks", "mode": "rw"}}}, "/lab/notebooks belongs to 0:0"),
        ({"volumes": {"OTHER": {"bind": "/lab", "mode": "rw"}}}, "is a lab of its own"),
        ({"volumes": {"OTHER": {"bind": "/opt/ailab/lab", "mode": "ro"}}}, "hides what the image keeps there"),
    ],
)
def test_a_container_that_cannot_work_says_why(built: Any, client: Any, options: Any, said: str) -> None:
    with reachable_folder() as closed, reachable_folder() as other:
        os.chown(other, UID, UID)
        (other / "lab.toml").write_text('[lab]\nname = "mine"\n')
        os.chown(other / "lab.toml", UID, UID)
        named = {"CLOSED": str(closed), "OTHER": str(other)}
        volumes = {named[key]: value for key, value in options.get("volumes", {}).items()}
        with container(client, built["names"][0], **(HARDENED | options | {"volumes": volumes})) as made:
            assert made.wait(timeout=60)["StatusCode"] in (1, 2)
            assert said in log(made) and "What to do:" in log(made)
        assert (other / "lab.toml").read_text() == '[lab]\nname = "mine"\n'


def test_the_printed_command_runs_the_lab(lab: CommandLine, built: Any, client: Any) -> None:
    words = lab.json("image", "run-command")["command"]
    assert shlex.split(lab.run("image", "run-command").stdout.replace("\\\n", " ")) == words
    assert words[-1].split(":")[0] == built["names"][0].split(":")[0]
    account = words[words.index("--user") + 1]
    owner = lab.lab.stat()
    assert account == f"{owner.st_uid}:{owner.st_gid}" and owner.st_uid != 0


def test_its_history_holds_no_secret_of_this_machine(built: Any, client: Any) -> None:
    history = json.dumps(client.api.history(built["id"]))
    secrets = [value for name, value in os.environ.items() if "INDEX_URL" in name.upper() and "://" in value]
    assert not any(value in history for value in secrets)


def test_a_package_that_is_not_there_is_named(lab: CommandLine, built: Any) -> None:
    kept = lab.paths.lock.read_text()
    locked = read_lock(lab.paths.lock)
    assert locked is not None
    # One of the lab's own, which go into the last layer: what is below it has been built.
    missing = Package("ailab-no-such-package", "0.0.77", "", (f"sha256:{'0' * 64}",))
    try:
        lab.paths.lock.write_text(replace(locked, packages=(*locked.packages, missing)).text())
        failed = lab.run("image", "build", check=False, timeout=UP_SECONDS)
        assert failed.returncode == 1 and "ailab-no-such-package" in failed.stderr, failed.stderr
    finally:
        lab.paths.lock.write_text(kept)
    assert lab.json("image", "build")["new"] is False


def test_it_stops_cleanly(running: tuple[Any, int, Path]) -> None:
    made, _port, _notebooks = running
    began = time.monotonic()
    made.stop(timeout=10)
    assert time.monotonic() - began < 10
    made.reload()
    assert made.attrs["State"]["ExitCode"] == 0, log(made)
