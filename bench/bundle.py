"""How long `ailab bundle install` takes, beside the same wheels installed by uv by hand, in the same run.

    python bench/bundle.py [--stack tensorflow-2.9] [--runs 5] [--folder /dev/shm] [--json]

The peer is a warm build: all wheels are on this disk, nothing is downloaded, and what has to be installed is unpacked,
the environment and the tools that the bundle installs, too. Beside it, for the record, a build whose wheels are already
unpacked in uv's cache, which only links files: no file that comes from elsewhere can be as fast. Ours, besides, unpacks
the file, checks it, and brings the lab and two Pythons.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from rows import Row, show

from ailab import bundling, provision
from ailab.access import tools
from ailab.bundles.file import Reader
from ailab.cli import init
from ailab.lab import Lab
from ailab.settings_file import set_value


@contextmanager
def quiet(_title: str) -> Iterator[Callable[[str], None]]:
    yield lambda _text: None


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Bench:
    """One bundle of one stack, made once."""

    def __init__(self, folder: Path, stack: str) -> None:
        self.folder = folder
        os.environ["AILAB_HOME"] = str(folder / "first")
        init.create(folder / "lab", stack=stack)
        # Without the CUDA libraries: a machine without a GPU would not install them either.
        set_value(folder / "lab" / "lab.toml", "environment", "gpu", "off")
        self.lab = Lab.open(folder / "lab")
        self.file = folder / "lab.bundle"
        with self.file.open("wb") as sink:
            bundling.create(self.lab, self.file, sink, quiet, print)
        generation = self.lab.generations.current()
        assert generation is not None, "the bundle was made from it"
        self.generation = generation
        self.wheels = folder / "wheels"
        with self.file.open("rb") as source:
            Reader(source, "").extract({"wheels": self.wheels}, lambda _text: None)

    def install(self) -> float:
        """`bundle install` on a machine that has ailab and nothing else."""
        os.environ["AILAB_HOME"] = str(self.folder / "other")

        def work() -> None:
            with self.file.open("rb") as source:
                bundling.install(Reader(source, ""), self.folder / "there", quiet, lambda _text: None)

        spent = seconds(work)
        self._clear("other", "there")
        return spent

    def by_hand(self, cache: str) -> float:
        """The same wheels, by uv: the environment, TensorBoard's and Node's."""
        environment = provision.uv_of(self.lab).environment() | {"UV_CACHE_DIR": str(self.folder / cache)}
        pinned = Path(self.generation.folder, "requirements.txt")
        wanted = [(self.generation.interpreter, pinned, [])]
        wanted += [(str(tools.own_python()), tools.REQUIREMENTS / one, ["--compile-bytecode"])
                   for one in tools.PYTHON_TOOLS]  # fmt: skip

        def work() -> None:
            for number, (python, requirements, options) in enumerate(wanted):
                place = self.folder / "by-hand" / str(number)
                program = provision.uv_of(self.lab).program
                words = ["--offline", "--no-index", "--find-links", str(self.wheels), "--require-hashes", *options]
                for argv in (
                    ["venv", "--quiet", "--python", python, str(place)],
                    ["pip", "sync", "--quiet", "--python", str(place / "bin/python"), *words, str(requirements)],
                ):
                    subprocess.run([program, *argv], env=environment, check=True)

        spent = seconds(work)
        self._clear("by-hand")
        return spent

    def _clear(self, *names: str) -> None:
        for name in names:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        os.sync()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stack", default="tensorflow-2.9")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work; the default is the temporary folder")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    taken: dict[str, list[float]] = {"install": [], "wheels": [], "unpacked": []}
    with tempfile.TemporaryDirectory(prefix="ailab-bench-", dir=chosen.folder) as folder:
        bench = Bench(Path(folder), chosen.stack)
        bench.by_hand("unpacked")
        for number in range(chosen.runs):
            works = [("install", bench.install), ("wheels", lambda: bench.by_hand("cache"))]
            for name, work in works if number % 2 else reversed(works):
                taken[name].append(work())
                bench._clear("cache")
            taken["unpacked"].append(bench.by_hand("unpacked"))
            print({name: round(values[-1], 2) for name, values in taken.items()}, file=sys.stderr, flush=True)
    found = {name: statistics.median(values) for name, values in taken.items()}
    rows = [Row("bundle install, beside a warm build", "s", found["install"], 1.5, found["wheels"])]
    status = show(f"{chosen.stack}, medians of {chosen.runs}", rows, {"medians": found}, as_json=chosen.json)
    if not chosen.json:
        print(f"{'wheels unpacked in uv cache already':<36} {found['unpacked']:6.2f} s")
    sys.exit(status)


if __name__ == "__main__":
    main()
