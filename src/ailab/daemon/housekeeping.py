"""Keeps what grows in a lab within its bounds: ended jobs, their code, events, empty folders, reports of trainings."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from ailab import events, files
from ailab.attempts import do_all
from ailab.daemon.parts import Parts
from ailab.jobs.code_store import CodeStore, collect
from ailab.jobs.gangs import task_prefix, tasks_by_job
from ailab.jobs.queue import Ended
from ailab.paths import JOB_REMOVED, LabPaths, private_folder
from ailab.unreadable import Unreadable

# Jobs that ended so long ago are forgotten, but for so many of the newest.
KEPT_SECONDS = 90 * 86400.0
KEPT_JOBS = 2000
# What has just ended is being looked at, and carried to MLflow.
YOUNG_SECONDS = 3600.0
# The audit log: the newest so many events, and none older than 400 days.
KEPT_EVENTS = 100_000
KEPT_EVENT_SECONDS = 400 * 86400.0
DAY = 86400.0

logger = logging.getLogger(__name__)


class Housekeeping:
    """Each method is one concern, to be called now and then; nothing of a job that has not ended is touched."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._jobs = parts.jobs
        self._paths = parts.lab.paths
        self._settings = parts.lab.settings.jobs

    def remove_old_files(self) -> None:
        """Remove what ended jobs have left (output, checkpoints) once it is older than [jobs] keep_days, and the oldest
        of it while it takes more than keep_size. The job itself, its code and its curves in `logs` stay."""
        now, known = time.time(), self._tasks()
        try:
            needed = self._jobs.needed()
        except Unreadable as unknown:
            logger.warning("nothing of ended jobs is removed: %s", unknown.message)
            return
        going: list[tuple[Ended, str]] = []
        kept: list[tuple[Ended, int]] = []
        for job in self._jobs.ended():
            size = self._size(job.id, known)
            if size is None or job.id in needed or now - job.ended_at < YOUNG_SECONDS:
                continue
            if now - job.ended_at > self._settings.keep_days * DAY or self._marker(job.id).exists():
                going.append((job, "age"))
            else:
                kept.append((job, size))
        total, most = sum(size for _job, size in kept), self._settings.keep_size
        for job, size in kept:
            if not most or total <= most:
                break
            going.append((job, "size"))
            total -= size
        do_all(going, lambda one: self._remove_files(one[0].id, one[1], known))

    def forget_old_jobs(self) -> None:
        """Forget jobs that ended long ago, but for the newest."""
        known = self._tasks()

        def gone(job: int) -> None:
            self._remove_tasks(job, known)
            _remove(self._paths.jobs / str(job))
            (self._paths.mlflow_runs / f"{task_prefix(job)}.json").unlink(missing_ok=True)

        do_all(self._jobs.forget(time.time() - KEPT_SECONDS, KEPT_JOBS), gone)

    def collect_code(self) -> None:
        """Remove the code that no job needs."""
        try:
            taken = collect(CodeStore(self._paths.snapshots), self._jobs.codes)
        except Unreadable as unknown:
            logger.warning("no code is removed: %s", unknown.message)
            return
        if taken.freed_bytes:
            logger.info("removed the code of %d snapshots, %d bytes", taken.trees, taken.freed_bytes)

    def remove_old_events(self) -> None:
        store = self._parts.lab.store
        oldest = time.time() - KEPT_EVENT_SECONDS
        while events.remove(store, before=oldest, keep=KEPT_EVENTS, most=1000):
            if self._parts.leaving.is_set():
                return

    def remove_empty_logs(self) -> None:
        """Remove the folders for TensorBoard in which ended jobs have written nothing."""
        with contextlib.suppress(OSError):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            folder = os.open(self._paths.logs / "jobs", flags)
            try:
                names = {one.name for one in os.scandir(folder)}
                old = time.time() - YOUNG_SECONDS
                for job in self._jobs.ended():
                    if str(job.id) in names and job.ended_at < old:
                        # It is one who works in the lab whose folder it is: only what is empty goes, and no link.
                        with contextlib.suppress(OSError):
                            os.rmdir(str(job.id), dir_fd=folder)
            finally:
                os.close(folder)

    def remove_old_trainings(self) -> None:
        """Remove reports of trainings in notebooks that nothing has carried to MLflow, as where there is none."""
        old = time.time() - self._settings.keep_days * DAY
        folders = [self._paths.trainings, *(LabPaths(one).trainings for one in _entries(self._paths.workspaces))]
        for folder in folders:
            for file in _entries(folder) if not folder.is_symlink() else ():
                if file.name.startswith("training-") and _is_idle_since(file, old):
                    file.unlink(missing_ok=True)

    def _tasks(self) -> Mapping[int, list[str]]:
        return tasks_by_job(self._parts.lab.runtime.tasks())

    def _marker(self, job: int) -> Path:
        return self._paths.jobs / str(job) / JOB_REMOVED

    def _size(self, job: int, known: Mapping[int, list[str]]) -> int | None:
        """The bytes on disk of what a job has left; None where there is nothing, or no more."""
        left = [one for one in _entries(self._paths.jobs / str(job)) if one.name != JOB_REMOVED]
        left += [self._paths.tasks / task for task in known.get(job, ())]
        return sum(size_of(one) for one in left) if left else None

    def _remove_files(self, job: int, why: str, known: Mapping[int, list[str]]) -> None:
        """The mark comes first: what a kill leaves is removed the next time, and says already why it is not whole."""
        marker = self._marker(job)
        if not marker.exists():
            private_folder(private_folder(self._paths.jobs) / str(job))
            files.replace(marker, json.dumps({"at": events.now(), "why": why}), mode=0o600)
            with self._parts.lab.store.engine.begin() as connection:
                detail = {"reason": why}
                events.record(
                    connection, actor="daemon", kind="files", subject=task_prefix(job), after="removed", detail=detail
                )
        self._remove_tasks(job, known)
        for one in _entries(self._paths.jobs / str(job)):
            if one.name != JOB_REMOVED:
                _remove(one)

    def _remove_tasks(self, job: int, known: Mapping[int, list[str]]) -> None:
        for task in known.get(job, ()):
            self._parts.lab.runtime.remove(task)


def size_of(path: Path) -> int:
    """The bytes on disk of a file, or of a folder with all in it; no link is followed."""
    try:
        seen = path.lstat()
        total = seen.st_blocks * 512
        if stat.S_ISDIR(seen.st_mode):
            total += sum(size_of(Path(one.path)) for one in os.scandir(path))
    except OSError:
        return 0
    return total


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _remove(path: Path) -> None:
    """Remove a file or a folder. Raises `OSError` with the name of what cannot be removed."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return
        try:
            shutil.rmtree(path)
        except PermissionError:
            _open_up(path)
            shutil.rmtree(path)


def _open_up(folder: Path) -> None:
    """Let us into folders that a job has closed to its own account, which is ours."""
    folder.chmod(0o700)
    for one in os.scandir(folder):
        if one.is_dir(follow_symlinks=False):
            _open_up(Path(one.path))


def _is_idle_since(file: Path, moment: float) -> bool:
    """Whether a report has not been written to since `moment`, and nobody trains: who does holds its lock."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return os.fstat(descriptor).st_mtime < moment
    except OSError:
        return False
    finally:
        os.close(descriptor)
