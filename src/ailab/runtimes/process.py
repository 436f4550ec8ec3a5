"""The process runtime: each task a process on this machine under its shim, all state in files."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import psutil

from ailab import command, files
from ailab.errors import AilabError, Conflict, NotFound
from ailab.events import now
from ailab.i18n import _
from ailab.paths import LabPaths
from ailab.runtimes import cgroup, kept_log, private_network, processes, task_files
from ailab.runtimes.base import Limits, Runtime, Seen, Site, TaskSpec, TaskState, Usage
from ailab.runtimes.limits import variables_under
from ailab.runtimes.pinning import Pins
from ailab.runtimes.terminal import LocalTerminal, Terminal
from ailab.unreadable import unreadable
from ailab.waiting import wait_for

START_SECONDS = 10.0
KILL_SECONDS = 10.0
# How long a task may take to end whose specification cannot be read any more.
DAMAGED_SECONDS = 60.0


class ProcessRuntime(Runtime):
    """State is files in a folder per task; whether a task lives is whether its shim holds the folder's lock."""

    name: ClassVar[str] = "process"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shims: list[subprocess.Popen[bytes]] = []
        self._pins = Pins(folder)
        self._was_there = False

    def _of(self, task_id: str) -> Path:
        return task_files.folder_of(self._folder, task_id)

    def site(self, kind: str, lab: LabPaths) -> Site:
        loopback = "127.0.0.1"
        return Site(sys.executable, lab, loopback, loopback, loopback, self.capabilities)

    def no_private_network(self, kind: str) -> AilabError | None:
        return private_network.refusal()

    def start(self, spec: TaskSpec) -> Seen:
        folder = self._of(spec.id)
        if self._is_gone():
            raise FileNotFoundError(errno.ENOENT, "the lab's folder was moved or removed", str(self._folder))
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with files.locked(folder / "starting"):
            seen = self.poll(spec.id)
            if seen.state == TaskState.running or task_files.has_had(seen, spec):
                return seen
            if seen.state == TaskState.unknown:
                raise unreadable(spec.id, seen.reason)
            self._end_marked(folder)
            for name in ("child.json", "exit.json", "grace"):
                (folder / name).unlink(missing_ok=True)
            kept = {"spec": _told_of_quota(spec).to_json(), "attempt": spec.attempt or seen.attempt + 1}
            kept |= {"token": f"{spec.id}-{secrets.token_hex(8)}", "boot": _boot()}
            kept |= {"place": task_files.identity(folder), "network": self._network(spec)}
            kept |= {"on_cpus": self._pins.choose(spec.id, spec.cpus)}
            kept |= {"dropped": _("[The disk was full: {bytes} bytes of output are missing here.]")}
            task_files.write_kept(folder, kept)
            # Looking at those that have ended lets the system forget them.
            self._shims = [started for started in self._shims if started.poll() is None]
            shim = command.start_detached(
                [sys.executable, "-I", "-S", private_network.SHIM, folder],
                log=folder / "shim.log",
                env={"PATH": os.defpath},
            )
            self._shims.append(shim)
            wait_for(
                lambda: (folder / "child.json").exists() or (folder / "exit.json").exists() or shim.poll() is not None,
                timeout=START_SECONDS,
                what=_("the shim of {task}").format(task=spec.id),
                first=0.005,
            )
            return self.poll(spec.id)

    def _network(self, spec: TaskSpec) -> dict[str, str | None] | None:
        """For the shim: whether its task has a network of its gang's own, and in which task's folder it finds one that
        is there already."""
        if not spec.gang or spec.open_ports:
            return None
        for folder in sorted(self._folder.glob(f"{spec.gang}-*")):
            other = task_files.read_spec(folder) if files.is_locked(folder / "lock") else None
            if other is not None and other.gang == spec.gang and folder.name != spec.id:
                return {"gang": str(folder)}
        return {"gang": None}

    def poll(self, task_id: str) -> Seen:
        folder = self._of(task_id)
        kept = task_files.read_kept(folder)
        if kept is None:
            # Of a folder that was moved away nothing is concluded, and nothing is started in its place.
            gone = Seen(TaskState.unknown) if self._is_gone() else Seen(TaskState.absent)
            return task_files.unknown(folder, "spec.json") or gone
        # The lock is looked at before the files: a task that ends in between is then seen as ended.
        alive = files.is_locked(folder / "lock")
        attempt = kept["attempt"]
        if (ended := task_files.read_end(folder, attempt)) is not None:
            return ended
        if (broken := task_files.unknown(folder, "exit.json", "child.json")) is not None:
            return broken
        child = files.read_json(folder / "child.json")
        if child is None or child.get("attempt") != attempt:
            if alive:
                return Seen(TaskState.starting, attempt=attempt)
            return Seen(TaskState.exited, reason=self._why_no_shim(folder), exit_status=126, attempt=attempt)
        pid, started_at = child.get("pid"), child.get("started_at")
        if not isinstance(pid, int) or not isinstance(started_at, str):
            return Seen(TaskState.unknown, reason=f"{folder / 'child.json'}: pid, started_at", attempt=attempt)
        if alive:
            return Seen(TaskState.running, pid, processes.account_of(pid), started_at, attempt=attempt)
        return self._bury(folder, kept, child)

    def _is_gone(self) -> bool:
        there = self._folder.is_dir()
        self._was_there |= there
        return self._was_there and not there

    def spec(self, task_id: str) -> TaskSpec | None:
        return task_files.read_spec(self._of(task_id))

    def _why_no_shim(self, folder: Path) -> str:
        try:
            lines = (folder / "shim.log").read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return f"cannot-start: {lines[-1] if lines else 'the shim did not start'}"

    def _bury(self, folder: Path, kept: dict[str, Any], child: dict[str, Any]) -> Seen:
        """Write down the end of a task whose shim is gone without having done so, once nothing of it is left."""
        rebooted = kept.get("boot") != _boot()
        if not rebooted:
            self._end_marked(folder)
        seen = Seen(
            TaskState.exited,
            started_at=child["started_at"],
            ended_at=now(),
            exit_status=128 + signal.SIGKILL,
            reason="lost" if rebooted else "shim-killed",
            attempt=kept["attempt"],
        )
        return task_files.write_end(folder, seen)

    def _end_marked(self, folder: Path) -> None:
        """KILL what carries the mark of the last attempt: its shim is gone, so nobody else will. In a copy of a lab the
        mark is that of the other one's task."""
        kept = task_files.read_kept(folder)
        if kept is None or not task_files.is_own(folder, kept):
            return

        def none_left() -> bool:
            left = list(processes.marked(kept["token"]))
            processes.signal_all(left, signal.SIGKILL)
            return not left

        wait_for(none_left, timeout=KILL_SECONDS, what=_("the processes of {task} to end").format(task=folder.name))

    def stop(self, task_id: str, *, grace: float | None = None) -> Seen:
        seen = self.poll(task_id)
        if seen.state in (TaskState.absent, TaskState.exited):
            return seen
        folder, spec = self._of(task_id), self.spec(task_id)
        if grace is not None:
            files.replace(folder / "grace", str(grace), mode=0o600)
        shim = files.holder(folder / "lock")
        if shim is not None:
            processes.signal_all([shim], signal.SIGTERM)
        # The shim keeps to the specification that it has read, though the file may be damaged since.
        usual = spec.grace if spec is not None else DAMAGED_SECONDS
        patience = (usual if grace is None else grace) + KILL_SECONDS
        what = _("{task} to end").format(task=task_id)
        wait_for(lambda: not files.is_locked(folder / "lock"), timeout=patience, what=what, first=0.01)
        return self.poll(task_id)

    def logs(self, task_id: str, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        folder = self._of(task_id)
        if not follow:
            yield from deque(kept_log.lines(folder), maxlen=tail)
            return
        yield from self._follow(folder, task_id, tail)

    def _follow(self, folder: Path, task_id: str, tail: int | None) -> Iterator[str]:
        """Lines as they come. A file that is rotated away is read to its end, and every later one that is kept."""
        what = _("output of {task}").format(task=task_id)
        source = wait_for(lambda: kept_log.open_oldest(folder), timeout=START_SECONDS, what=what)
        rest, come = b"", deque[str](maxlen=tail)
        try:
            while True:
                ended = self.poll(task_id).state not in (TaskState.running, TaskState.starting)
                moved = kept_log.is_moved(folder, source)
                # A line, or a letter of it, may have come in part.
                *lines, rest = (rest + source.read()).split(b"\n")
                come.extend(map(kept_log.text, lines))
                if moved:
                    following = kept_log.open_next(folder, source)
                    source.close()
                    source = following
                    continue
                yield from come
                come = deque()
                if ended:
                    break
                if not lines:
                    wait_for(partial(self._moved_on, folder, source, task_id), timeout=365 * 86400, what=what)
            if rest:
                yield kept_log.text(rest)
        finally:
            source.close()

    def _moved_on(self, folder: Path, source: Any, task_id: str) -> bool:
        grown = os.fstat(source.fileno()).st_size > source.tell()
        moved = kept_log.is_moved(folder, source)
        return grown or moved or self.poll(task_id).state not in (TaskState.running, TaskState.starting)

    def _running(self, task_id: str) -> TaskSpec:
        if self.poll(task_id).state != TaskState.running:
            raise NotFound(_("{task} does not run.").format(task=task_id), remedy="ailab status")
        spec = self.spec(task_id)
        assert spec is not None, "what runs has been started"
        return spec

    def exec(self, task_id: str, argv: Sequence[str], *, timeout: float) -> command.Finished:
        spec = self._running(task_id)
        return command.run(argv, timeout=timeout, env=spec.environment, cwd=Path(spec.cwd), check=False)

    def terminal(self, task_id: str, argv: Sequence[str]) -> Terminal:
        spec = self._running(task_id)
        return LocalTerminal(argv, {"TERM": "xterm-256color"} | spec.environment, Path(spec.cwd))

    def connect(self, task_id: str, port: int | str) -> str:
        self._running(task_id)
        return port if isinstance(port, str) else f"127.0.0.1:{port}"

    def usage(self, task_id: str) -> Usage:
        shim = files.holder(self._of(task_id) / "lock")
        if shim is None:
            return Usage()
        cpu, memory, count = 0.0, 0, 0
        try:
            of_task = psutil.Process(shim).children(recursive=True)
        except psutil.Error:
            return Usage()
        for process in of_task:
            try:
                times = process.cpu_times()
                cpu += times.user + times.system
                memory += _proportional_memory(process.pid)
                count += 1
            except (psutil.Error, OSError):
                continue
        return Usage(round(cpu, 2), memory, count)

    def limits(self, task_id: str) -> Limits:
        """As they hold for the task's own process, which hands them on to what it starts."""
        pid = self.poll(task_id).pid
        try:
            process = psutil.Process(pid) if pid is not None else None
            if process is None:
                return Limits()
            memory, _hard = process.rlimit(psutil.RLIMIT_DATA)
            allowed = len(process.cpu_affinity())
        except psutil.Error:
            return Limits()
        limited = allowed < len(os.sched_getaffinity(0))
        return Limits(float(allowed) if limited else 0.0, 0 if memory == psutil.RLIM_INFINITY else memory)

    def fault(self, task_id: str) -> str | None:
        """Nothing: what a process of this machine has is not its own to lose."""
        return None

    def silence(self) -> str | None:
        return None

    def tasks(self) -> list[str]:
        return task_files.ids(self._folder)

    def remove(self, task_id: str) -> None:
        if self.poll(task_id).state in (TaskState.running, TaskState.starting):
            raise Conflict(_("{task} still runs.").format(task=task_id), remedy=_("Stop it first."))
        shutil.rmtree(self._of(task_id), ignore_errors=True)


def _told_of_quota(spec: TaskSpec) -> TaskSpec:
    """Where the lab itself is in a container with a limit of CPU time, its tasks are told how many threads are of
    use."""
    cpus = spec.cpus or len(os.sched_getaffinity(0))
    return replace(spec, environment=variables_under(cgroup.own_limits().cpus, cpus) | spec.environment)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _proportional_memory(pid: int) -> int:
    """PSS in bytes (proc(5), smaps_rollup): a page that n processes share counts 1/n for each."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
