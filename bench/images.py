"""Every limit of issue 4's section "Speed": ours, the peer's and the ratio from the same run.

    "$AILAB_HOME/control/current/bin/python" bench/images.py [--stack tensorflow-2.9] [--runs 5] [--json]

AILAB_HOME is /var/lib/ailab for root and ~/.local/share/ailab for others, unless you have set it. Root is needed. The
exit status is 1 when a limit does not hold.

A container engine is started, with a store of its own in memory (12 GB: a disk, a shared one above all, adds what
others do to it), beside a lab and an AILAB_HOME of its own below /var/tmp, and all of it is removed at the end: the
engine of this machine is not touched. The peer is the Dockerfile that people write (see image_peer.py). Before each
cold build all that was built, packed or downloaded for an image is removed, but for the Debian that both stand on;
both go first in turn. Trainings are on half of the CPUs, two in each run (see typed.py). What one package more takes
is timed from its lock on, which is made before; its wheel is then in no cache. A first cell is a person's: the
password from the log, the web page, a kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent / "src"), str(Path(__file__).parent.parent / "tests")]

from environments import ONE_MORE
from first_cell import seconds_to_first_cell
from image_peer import NAME, Peer
from rows import Row, show
from second_engine import second_engine
from typed import DISK, Ailab, half_of_the_cpus, on_half_of_the_cpus, seconds, tell, work_folder

from ailab import bases, engine, imaging
from ailab.environments.generations import Generations
from ailab.environments.lock import read_lock
from ailab.images import base, builder
from ailab.images.dockerfile import ENVIRONMENT
from ailab.lab import Lab
from ailab.paths import MachinePaths
from ailab.runtimes.base import Mount, TaskSpec, TaskState
from ailab.runtimes.docker import DockerRuntime
from ailab.runtimes.limits import thread_variables
from ailab.settings_file import set_value
from ailab.waiting import wait_for

TRAINING = Path(__file__).with_name("train_cnn.py")
STORE_MB = 12_000
TRAINING_SECONDS = 600.0
CLEARING_SECONDS = 600.0
Figures = dict[str, list[float]]


class Bench:
    """A lab whose image is built, with and without one package more, and its peer; on the engine of DOCKER_HOST."""

    def __init__(self, folder: Path, ailab: Ailab, stack: str) -> None:
        self.folder = folder
        self.ailab = ailab
        self.client = engine.connect(patience=CLEARING_SECONDS)
        tell("making a lab and its image")
        ailab.run("init", ailab.lab.root, "--stack", stack, "--port", str(ailab.port))
        set_value(ailab.lab.settings, "image", "base", bases.BOOTSTRAP)
        self.image = str(ailab.json("image", "build")["id"])
        self._contexts = MachinePaths(ailab.home).cache / "images"
        self.plain = self._locked([])
        self.more = self._locked([ONE_MORE])

    def _locked(self, packages: list[str]) -> dict[Path, str]:
        """lab.toml and lab.lock for `packages` beside the stack."""
        set_value(self.ailab.lab.settings, "environment", "packages", packages)
        self.ailab.run("env", "lock")
        return {path: path.read_text() for path in (self.ailab.lab.settings, self.ailab.lab.lock)}

    def requirements(self, wanted: dict[Path, str]) -> str:
        self._want(wanted)
        locked = read_lock(self.ailab.lab.lock)
        assert locked is not None, "it has been locked"
        return locked.requirements()

    def _want(self, wanted: dict[Path, str]) -> None:
        for path, text in wanted.items():
            path.write_text(text)

    @contextmanager
    def peer(self) -> Iterator[Peer]:
        with imaging.build_secrets(Lab.open(self.ailab.lab.root)) as secrets:
            context = next(path for path in self._contexts.iterdir() if path.is_dir())
            yield Peer(self.folder / "peer", context, builder.choose(engine.connect(), "docker"), secrets)

    def build_ours(self, taken: Figures) -> None:
        """Cold, unchanged, one package more."""
        self.make_room()
        shutil.rmtree(self._contexts)
        self._want(self.plain)
        taken.setdefault("cold", []).append(self._build(new=True))
        taken.setdefault("unchanged", []).append(self._build(new=False))
        taken.setdefault("size", []).append(self._size(self.image))
        self._want(self.more)
        taken.setdefault("one more", []).append(self._build(new=True))

    def build_peer(self, peer: Peer, taken: Figures) -> None:
        """The same of the peer."""
        texts = [self.requirements(wanted) for wanted in (self.plain, self.more)]
        self.make_room()
        taken.setdefault("peer: cold", []).append(seconds(lambda: peer.build(texts[0])))
        taken.setdefault("peer: size", []).append(self._size(NAME))
        taken.setdefault("peer: one more", []).append(seconds(lambda: peer.build(texts[1])))

    def _build(self, *, new: bool) -> float:
        said: list[Any] = []
        spent = seconds(lambda: said.append(self.ailab.json("image", "build")))
        assert said[0]["new"] is new, said[0]
        self.image = said[0]["id"]
        return spent

    def _size(self, image: str) -> float:
        """In GB."""
        return float(self.client.api.inspect_image(image)["Size"]) / 1e9

    def make_room(self) -> None:
        """Leave nothing in the engine's store but the base."""
        for image in self.client.api.images():
            names = [name for name in image["RepoTags"] or [] if name != "<none>:<none>"]
            if not any(name.startswith(base.REPOSITORY) for name in names):
                for name in names or [image["Id"]]:
                    self.client.api.remove_image(name, force=True)
        self.client.api.prune_builds(all=True)
        # The lab's disk may still be busy: whoever is timed next would pay for it.
        os.sync()

    def first_cell(self) -> dict[str, float]:
        return seconds_to_first_cell(self.client, self.image)

    def train_bare(self) -> float:
        """Samples a second of a process of this machine, by the generation that the image has, too."""
        current = Generations(MachinePaths(self.ailab.home), self.ailab.lab).current()
        assert current is not None, "env build has made it"
        program = [*on_half_of_the_cpus(), str(current.program), "-I", str(TRAINING)]
        done = subprocess.run(program, env=_environment(), capture_output=True, text=True, check=True)
        return _speed(done.stdout)

    def train_contained(self) -> float:
        """Samples a second of a task in a container, as a workspace is one."""
        runtime = DockerRuntime(self.folder / "tasks")
        folder = str(TRAINING.parent)
        spec = TaskSpec(
            id="training",
            name="training",
            kind="job",
            command=(str(ENVIRONMENT / "bin/python"), "-I", f"/bench/{TRAINING.name}"),
            environment=_environment(),
            cwd="/tmp",
            cpus=len(half_of_the_cpus()),
            image=self.image,
            mounts=(Mount(folder, "/bench", read_only=True),),
        )
        runtime.start(spec)
        try:
            ended = wait_for(
                lambda: seen if (seen := runtime.poll(spec.id)).state != TaskState.running else None,
                timeout=TRAINING_SECONDS,
                what="the training",
            )
            said = "\n".join(runtime.logs(spec.id))
            assert ended.exit_status == 0, said
            return _speed(said)
        finally:
            runtime.stop(spec.id)
            runtime.remove(spec.id)


def _environment() -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "HOME": "/tmp",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **thread_variables(len(half_of_the_cpus())),
    }


def _speed(said: str) -> float:
    line = next(line for line in said.splitlines() if line.startswith("{"))
    return float(json.loads(line)["samples_per_second"])


def measure(bench: Bench, runs: int) -> Figures:
    taken: Figures = {}
    with bench.peer() as peer:
        builds: list[Callable[[], None]] = [
            lambda: bench.build_ours(taken),
            lambda: bench.build_peer(peer, taken),
        ]
        for number in range(1, runs + 1):
            tell(f"builds {number} of {runs}")
            for build in builds if number % 2 else reversed(builds):
                build()
            tell(str({name: round(values[-1], 2) for name, values in taken.items()}))
    tell("the generation of the same lock, on this machine")
    bench.ailab.run("env", "build")
    bench.make_room()
    bench.image = str(bench.ailab.json("image", "build")["id"])
    trainings: dict[str, Callable[[], float]] = {"contained": bench.train_contained, "bare": bench.train_bare}
    for number in range(1, runs + 1):
        tell(f"first cell and training {number} of {runs}")
        for name, spent in bench.first_cell().items():
            taken.setdefault(name, []).append(spent)
        for name in [*trainings, *reversed(trainings)]:
            taken.setdefault(name, []).append(trainings[name]())
        tell(str({name: round(taken[name][-1], 2) for name in ("password", "cell", *trainings)}))
    return taken


def rows(taken: Figures) -> list[Row]:
    found = {name: statistics.median(values) for name, values in taken.items()}
    return [
        Row("cold build", "s", found["cold"], 0.5, found["peer: cold"]),
        Row("one package more", "s", found["one more"], 5.0),
        Row("one package more, beside the peer", "s", found["one more"], 0.06, found["peer: one more"]),
        Row("nothing changed", "s", found["unchanged"], 1.0),
        Row("size of the image", "GB", found["size"], 0.95, found["peer: size"]),
        Row("docker run to an executed cell", "s", found["cell"], 10.0),
        # Times, so that less is better, as in all rows; 0.98 of the speed is 1 / 0.98 of the time.
        Row("1000 samples trained, beside bare", "s", 1000 / found["contained"], 1 / 0.98, 1000 / found["bare"]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stack", default="tensorflow-2.9")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with work_folder(DISK) as folder, second_engine(folder / "engine", megabytes=STORE_MB) as there:
        ailab = Ailab(folder)
        ailab.environment["DOCKER_HOST"] = os.environ["DOCKER_HOST"] = there
        os.environ["AILAB_HOME"] = str(ailab.home)
        taken = measure(Bench(folder, ailab, chosen.stack), chosen.runs)
    sys.exit(show(f"{chosen.stack}, medians of {chosen.runs}", rows(taken), {"taken": taken}, as_json=chosen.json))


if __name__ == "__main__":
    main()
