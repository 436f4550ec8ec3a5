"""How long `./check` takes in two builds, on this machine, one after the other: `bench/check_time.py OLD NEW`.

OLD and NEW are commits of this repository or folders of a checkout. Each has caches of its own, below --folder, which
its first run fills: with --warm that run is not counted. Words after `--` go to each `./check`, for example `--quick`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
LIMIT = 0.35
_LAST_LINE = re.compile(r"\d+ (?:passed|failed).* in [\d.]+s")


@dataclass(frozen=True)
class Run:
    build: str
    seconds: float
    status: int
    # What pytest said of itself: how many tests passed, failed and were skipped.
    tests: str
    log: str


def checkout_of(build: str, folder: Path) -> Path:
    """The folder of a build: itself, or a fresh clone at the commit."""
    if Path(build).is_dir():
        return Path(build).resolve()
    made = folder / "checkout"
    if not made.exists():
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", CHECKOUT, made], check=True)
    subprocess.run(["git", "-C", made, "fetch", "--quiet", "origin"], check=True)
    commit = subprocess.run(
        ["git", "-C", CHECKOUT, "rev-parse", "--verify", f"{build}^{{commit}}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    subprocess.run(["git", "-C", made, "checkout", "--quiet", "--detach", commit], check=True)
    return made


def run_check(build: str, words: list[str], folder: Path, number: int) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    # The account of the tests' labs passes through.
    folder.chmod(0o755)
    log = folder / f"run-{number}.log"
    places = {"AILAB_CHECK_HOME": str(folder / "home"), "AILAB_CHECK_MACHINE": str(folder / "machine")}
    where = checkout_of(build, folder)
    started = time.monotonic()
    with log.open("wb") as said:
        done = subprocess.run(
            [where / "check", *words],
            cwd=where,
            env=os.environ | places,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    seconds = time.monotonic() - started
    found = _LAST_LINE.findall(log.read_text(errors="replace"))
    return Run(build, seconds, done.returncode, found[-1] if found else "no tests were run", str(log))


def minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def show(run: Run) -> None:
    state = "passed" if run.status == 0 else f"FAILED with {run.status}"
    print(f"  {run.build:<14} {minutes(run.seconds):>6}  {state}; {run.tests}; {run.log}", flush=True)


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("old")
    words.add_argument("new")
    words.add_argument("--runs", type=int, default=1, help="runs of each build (default: 1)")
    words.add_argument("--warm", action="store_true", help="run each build once before, uncounted, to fill its caches")
    words.add_argument("--folder", type=Path, default=Path("/var/tmp/ailab-check-time"), help="for caches and logs")
    words.add_argument("--json", action="store_true", help="print one JSON document at the end, and rows to stderr")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    asked, check = words.parse_args(sys.argv[1:split]), sys.argv[split + 1 :]
    if asked.json:
        document, sys.stdout = sys.stdout, sys.stderr
    runs: list[Run] = []
    print(f"./check {' '.join(check)} on {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    for number in range(0 if asked.warm else 1, asked.runs + 1):
        for name, build in (("old", asked.old), ("new", asked.new)):
            run = run_check(build, check, asked.folder / name, number)
            show(run)
            if number:
                runs.append(run)
    old, new = (statistics.median(run.seconds for run in runs[start::2]) for start in (0, 1))
    ok = new / old <= LIMIT and all(run.status == 0 for run in runs)
    print(f"median: old {minutes(old)}, new {minutes(new)}, ratio {new / old:.2f} (at most {LIMIT:g})")
    if asked.json:
        rows = {
            "ok": ok,
            "old": old,
            "new": new,
            "ratio": new / old,
            "limit": LIMIT,
            "runs": [asdict(run) for run in runs],
        }
        print(json.dumps(rows, indent=2), file=document)
    return 0 if ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
