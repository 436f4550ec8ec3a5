"""Every limit of issue 2's section "Speed": ours, the peer's and the ratio from the same run.

    "$AILAB_HOME/control/current/bin/python" bench/up.py [--stack tensorflow-2.9] [--runs 5] [--skip-build] [--json]

AILAB_HOME is /var/lib/ailab for root and ~/.local/share/ailab for others, unless you have set it. The exit status is 1
when a limit does not hold.

A lab and an AILAB_HOME of its own are made below /var/tmp, from a copy of this checkout (edits meanwhile change
nothing), and removed at the end. The peer of `ailab up` is a bare `jupyter lab` of the same control environment, as the
lab's account, with a kernel of the same generation; both take turns, and the same client runs the same cell in both.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

import environments
import psutil
from first_cell import AtPort
from rows import Row, show
from typed import DISK, Ailab, kill_tree, plain_environment, tell, work_folder

from ailab.access.kernel_client import execute
from ailab.access.secret_files import secret
from ailab.environments.kernel import KERNEL_NAME, kernel_spec
from ailab.errors import NotRunning
from ailab.paths import LabPaths
from ailab.resources.ports import free_port
from ailab.stacks import load_stack
from ailab.waiting import wait_for

IDLE_SECONDS = 60.0
PEER_SECONDS = 120.0


class Peer:
    """A bare `jupyter lab` as a person starts it: its own empty configuration, TCP kernels, a token."""

    def __init__(self, folder: Path, ailab: Ailab, stack: str) -> None:
        self.paths = LabPaths(folder)
        self.code = load_stack(stack).proof_code()
        self.python = ailab.home / "control/current/bin/python"
        self.account = pwd.getpwuid(ailab.lab.state.stat().st_uid)
        self.environment = plain_environment() | {"HOME": str(folder)}
        kernel = folder / ".local/share/jupyter/kernels" / KERNEL_NAME
        for made in (kernel, self.paths.secrets):
            made.mkdir(parents=True)
        program = ailab.lab.current.resolve() / "bin/python"
        (kernel / "kernel.json").write_text(json.dumps(kernel_spec(program, "bench")))
        for path in (folder, *folder.rglob("*")):
            os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def start(self) -> float:
        """Seconds from the start of the process until the cell has run."""
        port = free_port("127.0.0.1", 18400)
        server = AtPort("peer", Path(), secret(self.paths, "service-token"), port)
        started = time.perf_counter()
        with self._server(port) as process:

            def kernel() -> str | None:
                if process.poll() is not None:
                    sys.exit(f"jupyter lab ended:\n{(self.paths.root / 'log').read_text()}")
                try:
                    return str(server.call("POST", "/api/kernels", {"name": KERNEL_NAME})[1]["id"])
                except NotRunning:
                    return None

            made = wait_for(kernel, timeout=PEER_SECONDS, what="jupyter lab", last=0.05)
            execute(server, made, self.code)
            return time.perf_counter() - started

    @contextmanager
    def _server(self, port: int) -> Iterator[subprocess.Popen[bytes]]:
        """JupyterLab at `port`, below a path that our client knows; killed with its kernels at the end."""
        words = [f"--ServerApp.port={port}", "--ServerApp.base_url=/user/peer/", "--no-browser"]
        words += [f"--IdentityProvider.token={secret(self.paths, 'service-token')}"]
        root = os.geteuid() == 0
        with (self.paths.root / "log").open("w") as log:
            process = subprocess.Popen(
                [self.python, "-m", "jupyterlab", *words],
                env=self.environment,
                cwd=self.paths.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **({"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []} if root else {}),
            )
        try:
            yield process
        finally:
            kill_tree(process.pid)
            process.wait()


def warm_starts(ailab: Ailab, peer: Peer, runs: int) -> dict[str, list[float]]:
    """Seconds of ours and the peer's, who start alone on the machine and take turns in going first."""

    def bare() -> float:
        ailab.run("down")
        return peer.start()

    taken: dict[str, list[float]] = {"up": [], "jupyter lab": []}
    both: list[tuple[str, Callable[[], float]]] = [("up", ailab.warm_up), ("jupyter lab", bare)]
    bare()
    for number in range(1, runs + 1):
        tell(f"warm start {number} of {runs}")
        for name, work in both if number % 2 else reversed(both):
            taken[name].append(work())
    return taken


def commands(ailab: Ailab, runs: int) -> dict[str, list[float]]:
    """Seconds of short commands as whole processes, the lab running; the second generation is in use at the start."""
    first = next(one["id"] for one in ailab.json("env", "list") if not one["current"])
    words = {"use": ("env", "use", first), "rollback": ("env", "rollback"), "status": ("status",), "help": ("--help",)}
    taken: dict[str, list[float]] = {name: [] for name in words}
    for number in range(1, runs + 1):
        tell(f"commands {number} of {runs}")
        for name, asked in words.items():
            taken[name].append(ailab.time(*asked))
    return taken


def idle(ailab: Ailab) -> tuple[dict[str, float], float]:
    """What hub, proxy and daemon hold (RSS in MB, after a minute in which nothing was asked) and take (percent of a
    core, in the minute after it)."""
    pids = {task["name"]: task["pid"] for task in ailab.json("status")["tasks"] if task["name"] in ("hub", "proxy")}
    pids["daemon"] = int((ailab.lab.run / "daemon.lock").read_text())
    processes = {name: psutil.Process(pid) for name, pid in pids.items()}

    def cpu_seconds() -> float:
        times = [process.cpu_times() for process in processes.values()]
        return sum(one.user + one.system for one in times)

    tell(f"idle: {2 * IDLE_SECONDS:g} s")
    time.sleep(IDLE_SECONDS)
    memory = {name: process.memory_info().rss / 1e6 for name, process in processes.items()}
    before, started = cpu_seconds(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return memory, 100 * (cpu_seconds() - before) / (time.monotonic() - started)


@contextmanager
def running(ailab: Ailab, stack: str) -> Iterator[None]:
    """A lab that is up, taken down at the end."""
    try:
        tell("making a lab")
        ailab.make(stack)
        yield
    finally:
        if ailab.lab.state.exists():
            ailab.run("down")


def measure(ailab: Ailab, stack: str, runs: int) -> tuple[list[Row], dict[str, Any]]:
    """The rows of a running lab, and every figure behind them."""
    with running(ailab, stack):
        taken = warm_starts(ailab, Peer(ailab.home.with_name("peer"), ailab, stack), runs)
        ailab.run("up")
        memory, cpu = idle(ailab)
        tell("one package more")
        ailab.add_package(environments.ONE_MORE)
        taken |= commands(ailab, runs)
    found = {name: statistics.median(values) for name, values in taken.items()}
    rows = [
        Row("warm up, beside bare jupyter lab", "s", found["up"], 1.6, found["jupyter lab"]),
        Row("env use", "s", found["use"], 1.0),
        Row("env rollback", "s", found["rollback"], 1.0),
        Row("status", "s", found["status"], 0.5),
        Row("--help", "s", found["help"], 0.3),
        Row("idle memory: hub, proxy, daemon", "MB", sum(memory.values()), 320),
        Row("idle CPU: hub, proxy, daemon", "%", cpu, 1.0),
    ]
    return rows, {"taken": taken, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stack", default="tensorflow-2.9")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--skip-build", action="store_true", help="without the rows of building, which take minutes")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    uv = Path(sys.prefix, ".uv")
    if uv.exists():  # what the launcher would say; the build rows need it
        os.environ.setdefault("AILAB_UV", uv.read_text())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    rows: list[Row] = []
    with work_folder(DISK) as folder:
        ailab = Ailab(folder)
        if not chosen.skip_build:
            rows = environments.build_rows(environments.measure_stack(chosen.stack, chosen.runs)[0])
        live, more = measure(ailab, chosen.stack, chosen.runs)
    title = f"{chosen.stack}, medians of {chosen.runs} (idle: one look)"
    sys.exit(show(title, [*rows, *live], more, as_json=chosen.json))


if __name__ == "__main__":
    main()
