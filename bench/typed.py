"""`./ailab` as a person types it, on a lab and an AILAB_HOME of its own, and how long that takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

import psutil

from ailab.environments.bytecode import COMPILE_SECONDS, is_compiled
from ailab.environments.generations import Generations
from ailab.paths import LabPaths, MachinePaths
from ailab.resources.ports import free_port
from ailab.waiting import wait_for

CHECKOUT = Path(__file__).parent.parent
DISK = Path("/var/tmp")
MEMORY = Path("/dev/shm")
NEEDED_BYTES = 12 * 10**9
PASSED_ON = ("_CERT_FILE", "_CERT_DIR", "_CERTS", "_proxy")


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def plain_environment() -> dict[str, str]:
    """What a person's shell has, without this machine's own settings of Python, pip and uv."""
    passed = {name: value for name, value in os.environ.items() if name.endswith(PASSED_ON)}
    return passed | {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}


class Ailab:
    """`./ailab` of a copy of the checkout, on a lab and an AILAB_HOME of its own."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "machine"
        self.lab = LabPaths(folder / "lab")
        self.program = folder / "checkout/ailab"
        self.port = free_port("127.0.0.1", 18000)
        shutil.copytree(CHECKOUT / "src/ailab", folder / "checkout/src/ailab", ignore=shutil.ignore_patterns("*.pyc"))
        shutil.copytree(CHECKOUT / "requirements", folder / "checkout/requirements")
        shutil.copy2(CHECKOUT / "ailab", self.program)
        self.environment = plain_environment() | {"HOME": os.environ["HOME"], "AILAB_HOME": str(self.home)}
        self.environment["AILAB_LANG"] = "en"

    def run(
        self,
        *words: str | Path,
        before: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        statuses: Sequence[int] = (0,),
    ) -> str:
        """Run one command to its end; what it printed. A status that is not among `statuses` ends the bench with what
        it said. `before` are words before it, `variables` what is added to its environment."""
        process = subprocess.Popen(
            [*before, self.program, "--lab", self.lab.root, *words],
            env=self.environment | dict(variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            out, err = process.communicate()
        except BaseException:
            kill_tree(process.pid)
            raise
        if process.returncode not in statuses:
            sys.exit(f"ailab {' '.join(map(str, words))} failed:\n{out}{err}")
        return out

    def json(self, *words: str | Path) -> Any:
        return json.loads(self.run(*words, "--json"))

    def time(self, *words: str | Path, **how: Any) -> float:
        return seconds(lambda: self.run(*words, **how))

    def make(self, stack: str) -> None:
        """A lab that has been up once: control environment, generation and tools are built, the user is made."""
        self.run("init", self.lab.root, "--stack", stack, "--port", str(self.port))
        self.run("up")
        self.settle()

    def settle(self) -> None:
        """Wait for what goes on behind a lab that is ready: after a switch, bytecode is compiled."""
        current = Generations(MachinePaths(self.home), self.lab).current()
        assert current is not None, "the lab is up"
        tell("waiting for the bytecode")
        wait_for(lambda: is_compiled(current), timeout=COMPILE_SECONDS, what="the environment's bytecode")

    def warm_up(self) -> float:
        """Seconds of `up` with nothing running, a cell over the hub included."""
        self.run("down")
        record = self.lab.environment / "proven.json"
        record.unlink(missing_ok=True)
        spent = self.time("up")
        if not record.exists():
            sys.exit("up did not run its cell: it wrote no proven.json")
        return spent

    def add_package(self, name: str) -> None:
        """Ask for one package more in lab.toml, and build and use that."""
        from ailab.settings_file import set_value

        owner = self.lab.settings.stat()
        set_value(self.lab.settings, "environment", "packages", [name])
        os.chown(self.lab.settings, owner.st_uid, owner.st_gid)
        self.run("env", "build")
        self.settle()


def kill_tree(pid: int) -> None:
    """KILL a process and all below it, whatever their sessions."""
    try:
        top = psutil.Process(pid)
        processes = [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def quick_place() -> Path:
    """Where the disk decides nothing: memory, if it has room for the builds; else the disk all the same."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= NEEDED_BYTES
    return MEMORY if roomy else DISK


@contextmanager
def work_folder(place: Path) -> Iterator[Path]:
    """A folder below `place` that any account can reach, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="ailab-", dir=place))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def half_of_the_cpus() -> list[int]:
    """On which trainings are compared, so that what the machine does beside them has a CPU, too. Other guests of a host
    disturb them all the same: seen here are 599 samples a second in most turns, 700 to 837 in some, contained or not,
    so there are to be twice as many turns as of other things."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[: max(1, len(allowed) // 2)]


def on_half_of_the_cpus() -> tuple[str, ...]:
    """What a command begins with, to run on them."""
    return ("taskset", "--cpu-list", ",".join(map(str, half_of_the_cpus())))
