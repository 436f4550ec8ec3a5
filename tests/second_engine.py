"""Another engine on this machine, with a store of its own: for benches, and tests that fill, cut off or stop one."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from ailab.waiting import wait_for


@dataclass
class SecondEngine:
    """Another engine on this machine, which may be ended and started again. Its store, `folder`, and its network are
    its own, and it sets no rules. `programs` is a folder of programs that it is to find first."""

    folder: Path
    bridge: str
    options: tuple[str, ...] = ()
    programs: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def sockets(self) -> Path:
        return Path("/run") / self.bridge

    @property
    def address(self) -> str:
        """Its DOCKER_HOST."""
        return f"unix://{self.sockets}/engine.sock"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def log(self) -> Path:
        return self.folder / "dockerd.log"

    def start(self) -> None:
        """Returns when it answers. As an init system does, one that fails to start is started once more: the containerd
        of an engine that was killed may accept nothing any more, and is then ended by the engine that gives up on it.
        """
        if not self._started():
            assert self._started(), self.log.read_text()

    def _started(self) -> bool:
        words = ["dockerd", "--data-root", self.store, "--exec-root", self.sockets / "exec"]
        words += ["--pidfile", self.sockets / "pid", "--host", self.address, "--bridge", self.bridge]
        words += ["--iptables=false", "--ip-masq=false", *self.options]
        path = os.pathsep.join(filter(None, [str(self.programs or ""), os.environ["PATH"]]))
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                words, stdout=sink, stderr=sink, start_new_session=True, env=os.environ | {"PATH": path}
            )
        wait_for(lambda: _answers(self.address) or not self.runs, timeout=60, what="the second engine")
        return self.runs

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Returns when it has ended; as an init system does, what a killed one leaves of itself is removed."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
        (self.sockets / "pid").unlink(missing_ok=True)


def memory_to_spare(megabytes: int) -> int:
    """`megabytes` where the machine has three times as many free, else 0: a store in memory is soon filled and gone."""
    return megabytes if psutil.virtual_memory().available > 3 * megabytes * 2**20 else 0


@contextmanager
def started_engine(
    folder: Path, *, megabytes: int = 0, options: Sequence[str] = (), programs: Path | None = None
) -> Iterator[SecondEngine]:
    """A second engine, which answers. With `megabytes` its store is a disk of that size, in memory."""
    number = zlib.crc32(str(folder).encode()) % 10**6
    made = SecondEngine(folder, f"ailab{number}", tuple(options), programs)
    network = _free_network()
    for place in (made.store, made.sockets):
        place.mkdir(parents=True, exist_ok=True)
    if megabytes:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", made.bridge, made.store], check=True)
    subprocess.run(["ip", "link", "add", made.bridge, "type", "bridge"], check=True)
    subprocess.run(["ip", "address", "add", f"{network}.1/24", "dev", made.bridge], check=True)
    try:
        made.start()
        yield made
    finally:
        if made.runs:
            made.end()
        subprocess.run(["ip", "link", "delete", made.bridge], check=False)
        # A disk of its own; or the mount of its store upon itself, which one that was killed leaves behind.
        while subprocess.run(["umount", "-l", made.store], check=False, capture_output=True).returncode == 0:
            pass
        shutil.rmtree(made.sockets, ignore_errors=True)


@contextmanager
def second_engine(folder: Path, *, megabytes: int = 0) -> Iterator[str]:
    """`started_engine`, of which only its DOCKER_HOST matters."""
    with started_engine(folder, megabytes=megabytes) as made:
        yield made.address


def _free_network() -> str:
    """Three numbers of a network that no interface here has, of those for tests (198.18.0.0/15, RFC 2544)."""
    taken = {one.address.rpartition(".")[0] for many in psutil.net_if_addrs().values() for one in many}
    free = [f"198.{18 + number // 256}.{number % 256}" for number in range(512)]
    return random.choice([network for network in free if network not in taken])


def _answers(address: str) -> bool:
    import docker

    try:
        with contextlib.closing(docker.DockerClient(base_url=address, version="auto")) as client:
            return bool(client.ping())
    except (docker.errors.DockerException, OSError):
        return False
