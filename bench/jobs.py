"""Every limit of issue 5's section "Speed": ours, the peer's and the ratio from the same run.

    "$AILAB_HOME/control/current/bin/python" bench/jobs.py [--runs 5] [--queued 10000] [--short 1000] [--json]

A lab and an AILAB_HOME of its own are made below /var/tmp, from a copy of this checkout, and removed at the end; the
peers take turns with ours (job_peers.py). Ray's throughput is taken over fewer jobs than ours, or it would take hours.
Trainings are on half of the CPUs, twice as often as the rest (see typed.py), and gangs on two, three times as often.
The exit status is 1 when a limit does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

import psutil
from job_peers import SLURM, Ray, Slurm, first_line
from rows import Row, show
from typed import (
    DISK,
    Ailab,
    half_of_the_cpus,
    on_half_of_the_cpus,
    plain_environment,
    seconds,
    tell,
    work_folder,
)

from ailab.client import Client
from ailab.resources.ports import free_port
from ailab.waiting import wait_for

STACK = "tensorflow-2.9"
OWNER = "admin"
RAY_JOBS = 10
SCHEDULER_SECONDS = 30.0
END_SECONDS = 1800.0
BENCH = Path(__file__).parent


class Bench:
    """A lab that is up, and what is asked of it."""

    def __init__(self, ailab: Ailab) -> None:
        self.ailab = ailab
        self.client = Client(ailab.lab.daemon_socket)
        self.folder = ailab.lab.root / "notebooks/bench"
        self.folder.mkdir()
        self.account = pwd.getpwuid(ailab.lab.state.stat().st_uid)
        for name in ("train_cnn.py", "train_gang.py"):
            (self.folder / name).write_bytes((BENCH / name).read_bytes())
        for path in (self.folder, *self.folder.iterdir()):
            os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def submit(self, *command: str, **wish: Any) -> list[int]:
        asked = {"command": command, "cwd": str(self.folder), "cpus": 1} | wish
        jobs: list[int] = self.client.post("/api/jobs", {"owner": OWNER, "wish": asked})["jobs"]
        return jobs

    def first_line(self) -> float:
        """Seconds from the start of `ailab run --follow` until the job's first line."""
        words = ["run", "--follow", "--cwd", self.folder, "--", "echo", "first"]
        return first_line([self.ailab.program, "--lab", self.ailab.lab.root, *words], self.ailab.environment, "first")

    def daemon_and_shim(self) -> float:
        """Milliseconds from the request to the daemon until the job's log has its line."""
        started = time.perf_counter()
        (job,) = self.submit("echo", "first")
        log = self.ailab.lab.tasks / f"job-{job}" / "log"
        wait_for(lambda: log.exists() and log.read_text() == "first\n", timeout=60, what="a line",
                 first=0.001, last=0.001)  # fmt: skip
        return (time.perf_counter() - started) * 1000

    def wait(self, job: int) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            seen: dict[str, Any] = self.client.get(f"/api/jobs/{job}")
            return seen if seen["state"] in ("done", "failed", "stopped") else None

        # Who waits for the processes started by hand asks nobody, and takes no time from them.
        seen = wait_for(ended, timeout=END_SECONDS, what=f"job {job}", last=2)
        if seen["state"] != "done":
            tell(self.ailab.run("logs", str(job))[-4000:])
            sys.exit(f"job {job}: {seen['state']}, {seen['note']}")
        return seen

    def queue(self, count: int) -> dict[str, float]:
        """What a long queue costs: milliseconds to submit each, seconds of `ailab jobs`, percent of a core that the
        daemon takes while nothing can start."""
        (holder,) = self.submit("sleep", "3600", cpus=self.client.get("/api/leases")["capacity"]["cpus"])
        wait_for(lambda: self.client.get(f"/api/jobs/{holder}")["state"] == "running", timeout=60, what="the holder")
        each = [seconds(lambda: self.submit("true")) * 1000 for _number in range(count)]
        listing = [self.ailab.time("jobs") for _run in range(5)]
        daemon = psutil.Process(int((self.ailab.lab.run / "daemon.lock").read_text()))

        def spent() -> float:
            times = daemon.cpu_times()
            return times.user + times.system

        before, started = spent(), time.monotonic()
        time.sleep(SCHEDULER_SECONDS)
        cpu = 100 * (spent() - before) / (time.monotonic() - started)
        queued = self.client.get("/api/jobs?limit=1")["counts"]["queued"]
        if queued != count:
            sys.exit(f"{queued} of {count} jobs are queued")
        for job in self.client.get(f"/api/jobs?state=queued&limit={count}")["jobs"]:
            self.client.post(f"/api/jobs/{job['id']}/stop", {"actor": OWNER})
        self.client.post(f"/api/jobs/{holder}/stop", {"actor": OWNER})
        wait_for(lambda: self.client.get(f"/api/jobs/{holder}")["ended_at"], timeout=90, what="the holder's end")
        return {"submit": statistics.median(each), "jobs": statistics.median(listing), "cpu": cpu}

    def per_second(self, count: int) -> float:
        """Jobs a second: `count` that do nothing, from the request until the last has ended."""
        started = time.perf_counter()
        first = self.submit("true", array=f"1-{count}")[0]
        query = f"/api/jobs?array={first}&limit=1&state=queued,starting,running"
        wait_for(lambda: not self.client.get(query)["jobs"], timeout=END_SECONDS, what="the last job", last=0.1)
        failed = self.client.get(f"/api/jobs?array={first}&limit=1&state=failed,stopped")["jobs"]
        if failed:
            sys.exit(f"job {failed[0]['id']}: {failed[0]['note']}")
        return count / (time.perf_counter() - started)

    def training(self) -> float:
        """Samples a second of the training as a job on half of the CPUs."""
        (job,) = self.submit("python", "train_cnn.py", cpus=len(half_of_the_cpus()))
        self.wait(job)
        return speed((self.ailab.lab.tasks / f"job-{job}" / "log").read_text())

    def bare_training(self) -> float:
        """Samples a second of the same training as a process of the lab's account, in the same environment, on as many
        CPUs."""
        with self._process("train_cnn.py", {}, before=on_half_of_the_cpus()) as process:
            return speed(process.communicate(timeout=END_SECONDS)[0])

    def gang(self) -> float:
        """Samples a second of two workers with a CPU each, as one job."""
        (job,) = self.submit("python", "train_gang.py", workers=2, strategy="multiworker")
        self.wait(job)
        return speed((self.ailab.lab.tasks / f"job-{job}-0" / "log").read_text())

    def gang_by_hand(self) -> float:
        """The same two workers as processes that are told of each other, with a CPU each."""
        first = free_port("127.0.0.1", 18800)
        cluster = {"worker": [f"127.0.0.1:{port}" for port in (first, free_port("127.0.0.1", first))]}
        with ExitStack() as started:
            both = []
            for index in range(2):
                told = {"cluster": cluster, "task": {"type": "worker", "index": index}}
                on = ("taskset", "--cpu-list", str(sorted(os.sched_getaffinity(0))[index]))
                process = self._process("train_gang.py", {"TF_CONFIG": json.dumps(told)}, before=on)
                both.append(started.enter_context(process))
            mine, _other = (speed(process.communicate(timeout=END_SECONDS)[0]) for process in both)
            return mine

    def _process(self, script: str, variables: dict[str, str], before: Sequence[str] = ()) -> subprocess.Popen[str]:
        python = self.ailab.lab.current.resolve() / "bin/python"
        environment = plain_environment() | {"TF_CPP_MIN_LOG_LEVEL": "2", "HOME": str(self.folder)} | variables
        become = {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}
        return subprocess.Popen(
            [*before, python, script],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            **(become if os.geteuid() == 0 else {}),
        )


def speed(output: str) -> float:
    return float(json.loads(output.splitlines()[-1])["samples_per_second"])


def in_turn(runs: int, works: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """What each of `works` returned in each run; who goes first changes."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(runs):
        for name in list(works) if number % 2 else reversed(list(works)):
            taken[name].append(works[name]())
            tell(f"  {name} {taken[name][-1]:.4g}")
    tell(", ".join(f"{name} {statistics.median(each):.4g}" for name, each in taken.items()))
    return taken


def measure(bench: Bench, folder: Path, runs: int, queued: int, short: int) -> tuple[list[Row], dict[str, Any]]:
    """The rows, and every figure behind them."""
    tell("submit to first line")
    bench.first_line()
    works = {"ailab": bench.first_line}
    ray, taken = Ray(folder), {}
    with ray.running():
        ray.first_line()
        taken["Ray"] = in_turn(runs, works | {"peer": ray.first_line})
        tell("short jobs")
        ray_rate = ray.per_second(RAY_JOBS)
    if Slurm.is_here():
        slurm = Slurm(folder)
        with slurm.running():
            taken["Slurm"] = in_turn(runs, works | {"peer": slurm.first_line})
    else:
        tell(f"Slurm is not measured: {', '.join(SLURM)} are wanted, and root. Debian: apt-get install slurm-wlm")
    daemon = [bench.daemon_and_shim() for _run in range(runs)]
    rate = bench.per_second(short)
    tell(f"{rate:.4g} short jobs a second, Ray {ray_rate:.4g}; daemon and shim {statistics.median(daemon):.4g} ms")
    tell(f"{queued} jobs in the queue")
    queue = bench.queue(queued)
    tell(", ".join(f"{name} {figure:.4g}" for name, figure in queue.items()))
    tell("training")
    trained = in_turn(2 * runs, {"job": bench.training, "bare": bench.bare_training})
    together = in_turn(3 * runs, {"gang": bench.gang, "by hand": bench.gang_by_hand})
    rows = [
        Row(f"first line, beside {name}", "s", statistics.median(both["ailab"]), {"Ray": 0.2, "Slurm": 1.0}[name],
            statistics.median(both["peer"]))
        for name, both in taken.items()
    ]  # fmt: skip
    rows += [
        Row("of it: daemon and shim", "ms", statistics.median(daemon), 150),
        Row("a short job, beside Ray", "ms", 1000 / rate, 0.5, 1000 / ray_rate),
        Row(f"submit one of {queued}", "ms", queue["submit"], 5),
        Row(f"`jobs` with {queued} queued", "s", queue["jobs"], 1),
        Row(f"daemon with {queued} queued", "%", queue["cpu"], 5),
        # Time for equal work, so that less is better as everywhere here: 0.99x as fast is 1 / 0.99 of the time.
        Row("1000 samples of training", "s", 1000 / statistics.median(trained["job"]), 1 / 0.99,
            1000 / statistics.median(trained["bare"])),
        Row("1000 samples of a gang of two", "s", 1000 / statistics.median(together["gang"]), 1 / 0.97,
            1000 / statistics.median(together["by hand"])),
    ]  # fmt: skip
    more = {"taken": taken, "daemon": daemon, "trained": trained, "together": together}
    return rows, more | {"per_second": {"ailab": rate, "Ray": ray_rate}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--short", type=int, default=1_000)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    uv = Path(sys.prefix, ".uv")
    if uv.exists():  # what the launcher would say
        os.environ.setdefault("AILAB_UV", uv.read_text())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with work_folder(DISK) as folder:
        ailab = Ailab(folder)
        try:
            tell("making a lab")
            ailab.make(STACK)
            rows, more = measure(Bench(ailab), folder, chosen.runs, chosen.queued, chosen.short)
        finally:
            if ailab.lab.state.exists():
                ailab.run("down")
    sys.exit(show(f"jobs, medians of {chosen.runs}", rows, more, as_json=chosen.json))


if __name__ == "__main__":
    main()
