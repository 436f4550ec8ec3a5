"""Stopping a lab: whoever types `ailab down` wins over everything that starts or builds, and nothing of it runs on."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ailab import files, place
from ailab.client import Client
from ailab.errors import AilabError, Conflict
from ailab.i18n import _
from ailab.lab import Lab
from ailab.paths import LabPaths, private_folder
from ailab.place import Place
from ailab.runtimes import processes
from ailab.runtimes.base import Runtime
from ailab.runtimes.registry import make_runtime
from ailab.waiting import interrupted_by, wait_for

STOP_SECONDS = 60.0
# Another `down` waits for the engine and for tasks that save their state: as long as both may take.
OTHER_DOWN_SECONDS = 180.0

# What a move to another file system has left without its folder is asked to end for so long.
LEFT_SECONDS = 10.0

Tell = Callable[[str], None]


class Stopped(Conflict):
    """`ailab down` was run while this command was starting the lab."""

    kind = "stopped"


def stop_mark(paths: LabPaths) -> int:
    """Changes with every `ailab down`. It is looked at, never read: root asks, and the folder is the account's."""
    try:
        return paths.stop_mark.lstat().st_mtime_ns
    except OSError:
        return 0


def _mark(paths: LabPaths) -> None:
    """Change the mark. On a full disk the file that is there still takes another time; where there is none, nobody is
    told, and all the same nothing of the lab runs on."""
    moment = max(time.time_ns(), stop_mark(paths) + 1)
    with suppress(OSError):
        os.close(os.open(paths.stop_mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.utime(paths.stop_mark, ns=(moment, moment))


@contextmanager
def unless_stopped(lab: Lab, mark: int) -> Iterator[None]:
    """Within, an `ailab down` ends what the main thread does, and what it has started: raises `Stopped` when the mark
    is not `mark` any more."""
    with interrupted_by(lambda: None if stop_mark(lab.paths) == mark else _stopped()):
        refuse_if_stopped(lab, mark)
        yield


def refuse_if_stopped(lab: Lab, mark: int) -> None:
    """Raises `Stopped` when the mark is not `mark` any more."""
    if stop_mark(lab.paths) != mark:
        raise _stopped()


def _stopped() -> Stopped:
    return Stopped(
        _("The lab was stopped (ailab down) while this command was starting it."), remedy=_("Start it: ailab up")
    )


@contextmanager
def _one_stop(lab: Lab, *, marked: bool) -> Iterator[None]:
    """Be the only one who stops the lab, and with `marked` note that it is to be down. The lock is on the folder of the
    lab's state, which only its account can open: there is no file that a full disk could refuse."""
    descriptor = os.open(lab.paths.state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        what = _("another ailab down to finish")
        wait_for(lambda: files.try_lock(descriptor), timeout=OTHER_DOWN_SECONDS, what=what)
        if marked:
            _mark(lab.paths)
        yield
    finally:
        os.close(descriptor)


def wait_for_other_down(lab: Lab) -> None:
    """Return when nobody stops the lab any more."""
    with _one_stop(lab, marked=False):
        pass


def daemon_pid(lab: Lab) -> int | None:
    """The daemon that holds the lock, if any."""
    return files.holder(lab.paths.run / "daemon.lock")


def running_tasks(lab: Lab, runtime: Runtime | None = None) -> list[str]:
    """The ids of the lab's tasks that run, by the runtime's own word: it needs no daemon."""
    runtime = runtime or lab.runtime
    return [task_id for task_id in runtime.tasks() if runtime.poll(task_id).state in ("running", "starting")]


def stop_lab(lab: Lab) -> list[str]:
    """Stop the lab's daemon and every task; with or without the daemon's help. Returns what ran.

    The daemon goes first, and one that another command has just begun ends by itself (it looks at the mark): nobody
    is left who starts anything while the tasks are stopped.
    """
    with _one_stop(lab, marked=True):
        elsewhere = _stop_moved(lab)
        running = running_tasks(lab)
        # It stops the tasks by itself, and judges none of them.
        end_daemon(lab, "/api/down", STOP_SECONDS)
        _stop_tasks(lab, lab.runtime)
        return [*elsewhere, *running]


def moved_while_running(lab: Lab) -> Place | None:
    """Where the lab was when what runs of it was started, if it was moved since; None for a copy, and where nothing
    runs."""
    was = place.moved_from(lab.paths)
    if was is None:
        return None
    runs = _moved_daemon(lab, was) or running_tasks(lab, _moved_runtime(lab, was)) or next(place.left_of(was), None)
    return was if runs else None


def moved_note(lab: Lab, was: Place) -> str:
    return _("The lab was moved from {was} to {now} while it ran; what runs of it still has the old path.").format(
        was=was.root, now=lab.paths.root
    )


def stop_moved(lab: Lab, tell: Tell) -> None:
    """Stop what still runs of a lab that was moved; nothing to do for any other."""
    was = moved_while_running(lab)
    if was is not None:
        tell(moved_note(lab, was) + " " + _("It is stopped first."))
        with _one_stop(lab, marked=False):
            _stop_moved(lab)


def _stop_moved(lab: Lab) -> list[str]:
    """Stop what runs of a lab that was moved, and remove its run folder; the ids of the tasks that ran."""
    was = place.moved_from(lab.paths)
    if was is None:
        return []
    if (pid := _moved_daemon(lab, was)) is not None:
        # It would only look for its tasks at the old place.
        processes.signal_all([pid], signal.SIGKILL)
        gone = _("the daemon to end")
        wait_for(lambda: _moved_daemon(lab, was) is None, timeout=STOP_SECONDS, what=gone)
    runtime = _moved_runtime(lab, was)
    running = running_tasks(lab, runtime)
    _stop_tasks(lab, runtime)
    began = time.monotonic()

    def none_left() -> bool:
        left = list(place.left_of(was))
        patient = time.monotonic() - began < LEFT_SECONDS
        processes.signal_all(left, signal.SIGTERM if patient else signal.SIGKILL)
        return not left

    wait_for(none_left, timeout=STOP_SECONDS, what=_("the lab's tasks to end"))
    # Where a new lab stands at the old place, the run folder is that one's.
    if not was.run.is_relative_to(was.root) and was.run.exists() and not was.root.exists():
        shutil.rmtree(private_folder(was.run))
    return running


def _moved_runtime(lab: Lab, was: Place) -> Runtime:
    return make_runtime(lab.settings.lab.runtime, lab.paths.tasks, LabPaths(was.root).tasks)


def _moved_daemon(lab: Lab, was: Place) -> int | None:
    """The daemon that was started at the lab's old place: it is in that folder, by whatever name."""
    inside = was.run.is_relative_to(was.root)
    run = lab.paths.root / was.run.relative_to(was.root) if inside else was.run
    pid = files.holder(run / "daemon.lock")
    return pid if pid is not None and place.works_in(pid, was) else None


def end_daemon(lab: Lab, address: str, patience: float) -> None:
    """Ask the daemon at `address` of its API to end; one that has not after `patience` seconds is killed."""
    lock = lab.paths.run / "daemon.lock"
    ended = _("the daemon to end")
    with suppress(AilabError):
        Client(lab.paths.daemon_socket, timeout=patience).post(address)
        wait_for(lambda: not files.is_locked(lock), timeout=patience, what=ended)
        return

    def is_gone() -> bool:
        # One that has just taken the lock writes its number a moment later.
        pid = daemon_pid(lab)
        processes.signal_all([pid] if pid else [], signal.SIGKILL)
        return not files.is_locked(lock)

    wait_for(is_gone, timeout=STOP_SECONDS, what=ended)


def _stop_tasks(lab: Lab, runtime: Runtime) -> None:
    """Stop what runs, until nothing does: a task whose start had begun shows only now. One that cannot be stopped, for
    its engine does not answer, keeps none of the others from it."""
    refusals: dict[str, AilabError] = {}

    def none_left() -> bool:
        for task_id in (running := running_tasks(lab, runtime)):
            try:
                runtime.stop(task_id)
                refusals.pop(task_id, None)
            except AilabError as refused:
                refusals[task_id] = refused
        for pid in (late := processes.shims_about_to_start(lab.paths.tasks)):
            processes.signal_all([pid], signal.SIGKILL)
        return not late and refusals.keys() >= set(running)

    wait_for(none_left, timeout=STOP_SECONDS, what=_("the lab's tasks to end"))
    for refused in refusals.values():
        raise refused


def clear_run_folder(lab: Lab) -> None:
    """Of a lab in which nothing runs, remove a run folder that stands outside of it; the next start makes it again."""
    run = lab.paths.run
    if run.is_relative_to(lab.paths.root) or not run.exists() or daemon_pid(lab) or running_tasks(lab):
        return
    # A kernel that proves the environment has its sockets there as well. One line for each bound socket.
    if f" {run}/" not in Path("/proc/net/unix").read_text():
        shutil.rmtree(private_folder(run))
