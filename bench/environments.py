"""How fast an environment is built, beside its peers in the same run: `uv pip sync`, and `python -m venv` with pip; and
how long the commands take that look at one, as a person types them.

    python bench/environments.py [--stack tensorflow-2.9] [--runs 5] [--folder DIR] [--json]

Prints ours, the peer's and the ratio, medians of all runs. Every cold build has a cache of its own, empty at its start;
ours and the peers take turns, and each goes first in turn, so that a slow minute meets them alike.

The builds are in memory (/dev/shm) where that has 12 GB free: on a disk it decides more than any of them (ext4 that
discards what was deleted: `uv pip sync` alone took 8 to 29 s, in memory 7.0 to 7.9 s). What a generation more takes of
the disk is measured below /var/tmp, for a file system in memory counts no directories.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from rows import Row, show
from typed import DISK, Ailab, quick_place, seconds, tell, work_folder

from ailab.environments import interpreters, lock
from ailab.environments.bytecode import compile_bytecode
from ailab.environments.generations import Generation, Generations
from ailab.environments.interpreters import Interpreter
from ailab.environments.lock import Lock
from ailab.environments.uv import Uv
from ailab.environments.verification import verify
from ailab.paths import LabPaths, MachinePaths
from ailab.settings import MirrorsSection
from ailab.stacks import Stack, load_stack

ONE_MORE = "humanize"


def blocks(*folders: Path) -> int:
    """Bytes on disk below the folders, each file counted once however many links it has."""
    seen: dict[tuple[int, int], int] = {}
    for folder in folders:
        for root, _folders, names in os.walk(folder):
            for path in (Path(root), *(Path(root, name) for name in names)):
                stat = path.lstat()
                seen[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    return sum(seen.values())


class Bench:
    """One machine folder, one stack, one interpreter."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        self.folder = folder
        self.stack = stack
        self.machine = MachinePaths(folder / "machine")
        self.lab = LabPaths(folder / "lab")
        self.uv = Uv(self.machine, MirrorsSection.model_validate({}))
        self.python: Interpreter = interpreters.find(stack, "", self.uv)
        self.generations = Generations(self.machine, self.lab)
        self.lab.root.mkdir(parents=True)
        self.lock: Lock = self._lock([])
        self.requirements = folder / "requirements.txt"
        self.requirements.write_text(self.lock.requirements(), encoding="utf-8")

    def _lock(self, asked: list[str]) -> Lock:
        return lock.ensure_lock(self.lab.lock, self.stack, asked, self.uv, self.python.program)[0]

    def ours(self, wanted: Lock) -> Generation:
        return self.generations.build(self.stack, wanted, self.python, self.uv, lambda _text: None)[0]

    def cold_ours(self) -> float:
        self._clear(self.machine.home)
        return seconds(lambda: self.ours(self.lock))

    def cold_uv(self) -> float:
        """The same lock, by hand: an environment and one `uv pip sync`."""
        target, cache = self.folder / "uv", self.folder / "uv-cache"
        self._clear(target, cache)
        environment = self.uv.environment() | {"UV_CACHE_DIR": str(cache)}
        program = self.uv.program

        def work() -> None:
            for words in (
                ["venv", "--quiet", "--python", self.python.program, target],
                ["pip", "sync", "--quiet", "--python", target / "bin/python", "--require-hashes", self.requirements],
            ):
                subprocess.run([program, *words], env=environment, check=True)

        spent = seconds(work)
        self._clear(target, cache)
        return spent

    def cold_pip(self) -> float:
        """The same pins, as most tutorials do it: `python -m venv`, then pip."""
        target, cache = self.folder / "pip", self.folder / "pip-cache"
        self._clear(target, cache)
        # pip as it comes: this machine's own indexes and wheel folders would slow it down, or help it.
        plain = {name: value for name, value in os.environ.items() if not name.startswith("PIP_") or name == "PIP_CERT"}
        environment = plain | {"PIP_CACHE_DIR": str(cache), "PIP_CONFIG_FILE": os.devnull}
        environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
        words = [target / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "-r", self.requirements]

        def work() -> None:
            subprocess.run([self.python.program, "-m", "venv", target], env=environment, check=True)
            subprocess.run(words, env=environment, check=True)

        spent = seconds(work)
        self._clear(target, cache)
        return spent

    def one_more(self) -> tuple[float, float]:
        """One package more: seconds to lock it with a cold cache, seconds to build and use it."""
        self.ours(self.lock)
        locked: list[Lock] = []
        made: list[Generation] = []

        def work() -> None:
            made.append(self.ours(locked[0]))
            self.generations.use(made[0].id, who="bench", why="one more")

        locking = seconds(lambda: locked.append(self._lock([ONE_MORE])))
        spent = seconds(work)
        shutil.rmtree(made[0].folder)
        return locking, spent

    def share_of_disk(self) -> float:
        """What a generation with one package more adds to the disk, as a part of the first: both with bytecode."""
        first = Path(self.ours(self.lock).folder)
        compile_bytecode(first)
        locked = self._lock([ONE_MORE])
        # The registry's metadata, which locking has fetched, is no part of the generation.
        before, alone = blocks(self.machine.home), blocks(first)
        compile_bytecode(Path(self.ours(locked).folder))
        return (blocks(self.machine.home) - before) / alone

    def switch(self) -> tuple[float, float]:
        """Seconds of `use` and of `rollback`."""
        ids = [self.ours(one).id for one in (self.lock, self._lock([ONE_MORE]))]
        self.generations.use(ids[0], who="bench", why="start")
        use = seconds(lambda: self.generations.use(ids[1], who="bench", why="bench"))
        return use, seconds(lambda: self.generations.rollback(who="bench"))

    def verify(self) -> float:
        """Seconds to compare every file of the environment with its lock, its files being in the page cache."""
        made = self.ours(self.lock)
        assert verify(made).ok
        return verify(made).seconds

    @staticmethod
    def _clear(*folders: Path) -> None:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        # The disk is still busy with what was deleted: whoever is timed next would pay for it.
        os.sync()


def measure(bench: Bench, runs: int) -> dict[str, float]:
    """Medians, in seconds and shares."""
    taken: dict[str, list[float]] = {}
    tell("warming up: the registry and this machine's page cache")
    bench.cold_uv()
    cold = [("build", bench.cold_ours), ("uv pip sync", bench.cold_uv), ("venv + pip", bench.cold_pip)]
    for number in range(1, runs + 1):
        tell(f"run {number} of {runs}")
        for name, work in cold if number % 2 else reversed(cold):
            taken.setdefault(name, []).append(work())
        locking, spent = bench.one_more()
        taken.setdefault("its lock", []).append(locking)
        taken.setdefault("one package more", []).append(spent)
        taken.setdefault("verify", []).append(bench.verify())
        use, rollback = bench.switch()
        taken.setdefault("use", []).append(use)
        taken.setdefault("rollback", []).append(rollback)
        tell(str({name: round(values[-1], 3) for name, values in taken.items()}))
    return {name: statistics.median(values) for name, values in taken.items()}


def measure_stack(name: str, runs: int, place: Path | None = None) -> tuple[dict[str, float], str]:
    """Medians of a stack's builds in a temporary folder below `place`, and the Python that they were for."""
    stack = load_stack(name)
    with work_folder(place or quick_place()) as folder:
        bench = Bench(folder, stack)
        found = measure(bench, runs)
    with work_folder(DISK) as folder:
        tell("what one package more takes of the disk")
        found["its disk"] = Bench(folder, stack).share_of_disk()
    return found, bench.python.version


def measure_commands(name: str, runs: int, place: Path | None = None) -> dict[str, float]:
    """Medians of whole commands on a lab that is built and does not run, in seconds."""
    with work_folder(place or quick_place()) as folder, socket.create_server(("127.0.0.1", 0)) as silent:
        ailab = Ailab(folder)
        tell("making a lab")
        ailab.run("init", ailab.lab.root, "--stack", name, "--port", str(ailab.port))
        ailab.run("env", "build")
        # It takes connections and never says a word, as a firewall or a broken proxy does.
        hole = {"HTTPS_PROXY": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        typed: dict[str, Callable[[], float]] = {
            "env lock": lambda: ailab.time("env", "lock"),
            "env verify": lambda: ailab.time("env", "verify"),
            "doctor": lambda: ailab.time("doctor", statuses=(0, 1)),
            "doctor in a black hole": lambda: ailab.time("doctor", statuses=(1,), variables=hole),
        }
        if os.geteuid() == 0 and shutil.which("unshare"):
            alone = ("unshare", "--net")
            typed["doctor without a network"] = lambda: ailab.time("doctor", statuses=(1,), before=alone)
        taken: dict[str, list[float]] = {title: [] for title in typed}
        for number in range(1, runs + 1):
            tell(f"commands {number} of {runs}")
            for title, work in typed.items():
                taken[title].append(work())
    return {title: statistics.median(values) for title, values in taken.items()}


def build_rows(found: dict[str, float]) -> list[Row]:
    return [
        Row("cold build, beside uv pip sync", "s", found["build"], 1.15, found["uv pip sync"]),
        Row("cold build, beside venv + pip", "s", found["build"], 0.35, found["venv + pip"]),
        Row("one package more: time", "s", found["one package more"], 5.0),
        Row("one package more: disk", "%", 100 * found["its disk"], 3.0),
    ]


def switch_rows(found: dict[str, float]) -> list[Row]:
    return [
        Row("use", "s", found["use"], 1.0),
        Row("rollback", "s", found["rollback"], 1.0),
        Row("verify", "s", found["verify"], 5.0),
    ]


def command_rows(found: dict[str, float]) -> list[Row]:
    return [Row(f"ailab {title}", "s", spent, 1.0 if title == "env lock" else 5.0) for title, spent in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stack", default="tensorflow-2.9")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work; the default is in memory")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    found, python = measure_stack(chosen.stack, chosen.runs, chosen.folder)
    title = f"{chosen.stack} on Python {python}, medians of {chosen.runs}"
    commands = measure_commands(chosen.stack, chosen.runs, chosen.folder)
    rows = [*build_rows(found), *switch_rows(found), *command_rows(commands)]
    status = show(title, rows, {"medians": found | commands}, as_json=chosen.json)
    if not chosen.json:
        print(f"{'one package more: locking it':<34} {found['its lock']:8.2f} s   (the registry's metadata, cold)")
    sys.exit(status)


if __name__ == "__main__":
    main()
