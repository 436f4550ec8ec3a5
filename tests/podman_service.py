"""Podman's service for tests, with a store of its own."""

from __future__ import annotations

import grp
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from ailab.waiting import wait_for

_MISSING = [name for name in ("podman", "buildah", "newuidmap", "runc") if shutil.which(name) is None]
needs_podman = pytest.mark.skipif(
    bool(_MISSING) or os.geteuid() != 0,
    reason=f"Podman and buildah are not tested: that needs root, podman, buildah, uidmap, runc ({_MISSING})",
)
_IDS = "700000:65536"
# crun, the usual runtime, does not work where both versions of cgroups are; and no limit may be above the caller's own.
_CONFIG = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def config(folder: Path) -> dict[str, str]:
    """Variables that have Podman and buildah work on any machine that tests run on."""
    file = folder / "containers.conf"
    file.write_text(_CONFIG)
    return {"CONTAINERS_CONF": str(file)}


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """Podman's service of root, which the group `docker` may use; its DOCKER_HOST."""
    sockets = Path("/run") / folder.name
    sockets.mkdir()
    socket = sockets / "podman.sock"
    places = ["--root", folder / "store", "--runroot", sockets / "run"]
    log = folder / "podman.log"
    with log.open("wb") as sink:
        running = subprocess.Popen(
            ["podman", *places, "system", "service", "--time", "0", f"unix://{socket}"],
            stdout=sink, stderr=sink, env=os.environ | config(folder),
        )  # fmt: skip
    try:
        wait_for(lambda: socket.exists() or running.poll() is not None, timeout=20, what="Podman's service")
        assert running.poll() is None, log.read_text()
        shutil.chown(socket, group=grp.getgrnam("docker").gr_gid)
        socket.chmod(0o660)
        yield f"unix://{socket}"
    finally:
        running.terminate()
        running.wait(20)
        subprocess.run(["umount", "-l", folder / "store" / "overlay"], capture_output=True, check=False)
        shutil.rmtree(sockets, ignore_errors=True)


@contextmanager
def subordinate_ids(account: str) -> Iterator[None]:
    """The account has subordinate ids for a while."""
    # Not by usermod, which takes nothing away while the account has a process.
    files = (Path("/etc/subuid"), Path("/etc/subgid"))
    line = f"{account}:{_IDS}\n"
    for file in files:
        file.write_text(f"{file.read_text()}{line}")
    try:
        yield
    finally:
        for file in files:
            file.write_text(file.read_text().replace(line, "", 1))


def client(address: str) -> docker.DockerClient:
    return docker.DockerClient(base_url=address, version="auto", timeout=600)
