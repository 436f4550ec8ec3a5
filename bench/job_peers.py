"""What bench/jobs.py is measured beside: Ray's jobs and Slurm, each alone on this machine, made and removed here.

Ray is installed by uv into the work folder; Slurm is Debian's slurm-wlm with one node and its defaults, where that is
installed and this account is root's.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typed import kill_tree, plain_environment, tell

from ailab.resources.ports import free_port
from ailab.waiting import wait_for

RAY = "ray[default]==2.60.0"
START_SECONDS = 120.0
LINE_SECONDS = 120.0
SLURM = ("slurmctld", "slurmd", "munged", "sbatch", "scancel")


def first_line(words: list[str | Path], environment: dict[str, str], wanted: str) -> float:
    """Seconds from the start of a program until it has printed the line `wanted`; it is left to end by itself."""
    started = time.perf_counter()
    with subprocess.Popen(
        words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        spent = next((time.perf_counter() - started for line in process.stdout if line.strip() == wanted), None)
        process.stdout.read()
    if spent is None:
        sys.exit(f"{' '.join(map(str, words))} did not print {wanted}")
    return spent


class Ray:
    """A head node on this machine."""

    def __init__(self, folder: Path) -> None:
        tell("installing Ray")
        uv = os.environ["AILAB_UV"]
        self.folder = folder / "ray"
        environment = os.environ | {"UV_NO_CONFIG": "1"}
        python = sys._base_executable  # type: ignore[attr-defined]  # of the control environment's own Python
        subprocess.run([uv, "venv", "--quiet", "--python", python, self.folder], check=True, env=environment)
        target = ["--python", self.folder / "bin/python"]
        subprocess.run([uv, "pip", "install", "--quiet", *target, RAY], check=True, env=environment)
        self.program = self.folder / "bin/ray"
        address = f"http://127.0.0.1:{free_port('127.0.0.1', 8264)}"
        self.environment = plain_environment() | {
            "HOME": os.environ["HOME"],
            "RAY_ADDRESS": address,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.port = address.rpartition(":")[2]

    @contextmanager
    def running(self) -> Iterator[None]:
        words = ["--head", "--dashboard-port", self.port, "--disable-usage-stats", "--temp-dir", self.folder / "tmp"]
        quietly = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": self._own()}
        subprocess.run([self.program, "start", *words], check=True, timeout=START_SECONDS, **quietly)
        try:
            yield
        finally:
            subprocess.run([self.program, "stop", "--force"], check=False, timeout=START_SECONDS, **quietly)

    def _own(self) -> dict[str, str]:
        """To start a head node, none may be named."""
        return {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}

    def first_line(self) -> float:
        return first_line([self.program, "job", "submit", "--", "echo", "first"], self.environment, "first")

    def per_second(self, count: int) -> float:
        """Jobs a second: `count` that do nothing, submitted by Ray's own client and waited for."""
        code = (
            "import sys, time\nfrom ray.job_submission import JobStatus, JobSubmissionClient\n"
            "client = JobSubmissionClient()\nstarted = time.perf_counter()\n"
            f"ids = [client.submit_job(entrypoint='true') for _ in range({count})]\n"
            "while ids:\n"
            "    states = {one: client.get_job_status(one) for one in ids}\n"
            "    assert JobStatus.FAILED not in states.values(), states\n"
            "    ids = [one for one, state in states.items() if not state.is_terminal()]\n"
            "    time.sleep(0.1)\n"
            "print(time.perf_counter() - started)\n"
        )
        done = subprocess.run(
            [self.folder / "bin/python", "-c", code],
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=60.0 * count,
        )
        return count / float(done.stdout.splitlines()[-1])


class Slurm:
    """Controller and daemon of one node, with a key of their own."""

    @staticmethod
    def is_here() -> bool:
        return os.geteuid() == 0 and all(shutil.which(name) for name in SLURM)

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "slurm"
        for name in ("", "state", "spool", "munge"):
            (self.folder / name).mkdir(mode=0o755)
        host = socket.gethostname()
        key, wire = self.folder / "munge/key", self.folder / "munge/socket"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self.munge = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={wire}"]
        self.munge += [f"--{what}-file={self.folder}/munge/{what}" for what in ("pid", "log", "seed")]
        # What has no default, and where things are; the rest is Slurm's own.
        settings = {
            "ClusterName": "bench",
            "SlurmctldHost": host,
            "SlurmUser": "root",
            "AuthInfo": f"socket={wire}",
            "StateSaveLocation": self.folder / "state",
            "SlurmdSpoolDir": self.folder / "spool",
            "SlurmctldPidFile": self.folder / "slurmctld.pid",
            "SlurmdPidFile": self.folder / "slurmd.pid",
            "SlurmctldPort": free_port("127.0.0.1", 18700),
            "SlurmdPort": free_port("127.0.0.1", 18750),
            "ProctrackType": "proctrack/linuxproc",
            "ReturnToService": 2,
            "MailProg": "/bin/true",
        }
        lines = [f"{name}={value}" for name, value in settings.items()]
        lines += [f"NodeName={host} CPUs={os.cpu_count()} State=UNKNOWN"]
        lines += [f"PartitionName=bench Nodes={host} Default=YES MaxTime=INFINITE State=UP"]
        conf = self.folder / "slurm.conf"
        conf.write_text("\n".join(lines) + "\n")
        self.environment = plain_environment() | {"SLURM_CONF": str(conf)}

    @contextmanager
    def running(self) -> Iterator[None]:
        programs = [self.munge, ["slurmctld", "-D"], ["slurmd", "-D"]]
        started = []
        try:
            with (self.folder / "log").open("w") as log:
                for words in programs:
                    started.append(subprocess.Popen(words, env=self.environment, stdout=log, stderr=log))
                    time.sleep(1)
            wait_for(self._is_idle, timeout=START_SECONDS, what="Slurm's node", first=0.2)
            yield
        finally:
            for process in reversed(started):
                kill_tree(process.pid)
                process.wait()

    def _is_idle(self) -> bool:
        words = ["sinfo", "--noheader", "--format=%T"]
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False)
        return done.stdout.strip() == "idle"

    def first_line(self) -> float:
        """Seconds from the start of `sbatch` until the job's output file has its line, on a node that has been idle for
        longer than Slurm's scheduler pauses between two looks (sched_min_interval, 2 s)."""
        wait_for(self._is_idle, timeout=START_SECONDS, what="Slurm's node", first=0.2)
        time.sleep(3)
        output = self.folder / f"out-{time.monotonic_ns()}"
        words = ["sbatch", "--quiet", f"--output={output}", "--wrap", "echo first"]
        started = time.perf_counter()
        subprocess.run(words, env=self.environment, check=True, stdout=subprocess.DEVNULL)
        wait_for(lambda: output.exists() and output.read_text() == "first\n", timeout=LINE_SECONDS,
                 what="the job's output", first=0.002, last=0.002)  # fmt: skip
        return time.perf_counter() - started
