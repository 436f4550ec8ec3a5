"""Trainings in notebooks: each Keras fit in a kernel is a file, and becomes a run."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ailab.paths import IMAGE_LAB, LabPaths
from ailab.tracking.described import Tracked, experiment_of

# In a step; the oldest first.
MOST = 50
_ENDS = {"done": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_LINE_BYTES = 8192
_PREFIX, _SUFFIX = "training-", ".jsonl"


def training_runs(lab: LabPaths) -> list[Tracked]:
    """What notebooks have reported and is still there: who has written it into MLflow removes its file."""
    found = [one for owner, path in _files(lab) if (one := _tracked(lab, owner, path)) is not None]
    return sorted(found, key=lambda one: one.started)[:MOST]


def _files(lab: LabPaths) -> Iterator[tuple[str, Path]]:
    """The files, each with the name of the person whose container wrote it; empty where all write in one place."""
    folders = [("", lab.trainings)]
    folders += [(path.name, LabPaths(path).trainings) for path in _entries(lab.workspaces)]
    for owner, folder in folders:
        # A container's are its person's to change: no link of theirs leads us elsewhere.
        if not (folder.is_symlink() or folder.parent.is_symlink()):
            yield from ((owner, path) for path in _entries(folder) if _is_ours(path.name))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_ours(name: str) -> bool:
    middle = name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
    return name == f"{_PREFIX}{middle}{_SUFFIX}" and middle.isalnum() and middle.isascii() and len(middle) <= 64


def _tracked(lab: LabPaths, owner: str, path: Path) -> Tracked | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode):
            return None
        # The one who trains holds the lock: it ends with its process, however that ends.
        is_open = not _try_lock(descriptor)
        head = _document(os.pread(descriptor, _LINE_BYTES, 0).partition(b"\n")[0])
        tail = os.pread(descriptor, _LINE_BYTES, max(0, seen.st_size - _LINE_BYTES)).rstrip(b"\n").rpartition(b"\n")[2]
    except OSError:
        return None
    finally:
        os.close(descriptor)
    about = head.get("training")
    if not isinstance(about, dict):
        return None
    end = "" if is_open else str(_document(tail).get("ended", ""))
    user = owner or str(about.get("user", ""))[:64]
    key = path.name.removesuffix(_SUFFIX)
    named = {name: str(about.get(name, ""))[:4096] for name in ("name", "folder", "kernel", "python")}
    tags = {f"ailab.{name}": value for name, value in named.items() if value and name != "name"}
    return Tracked(
        key=key,
        mark=("ailab.training", key.removeprefix(_PREFIX)),
        experiment=experiment_of(user, Path(named["folder"] or "/"), IMAGE_LAB if owner else lab.root),
        name=named["name"] or "training",
        user=user,
        started=float(about["t"]) if isinstance(about.get("t"), int | float) else seen.st_mtime,
        status="RUNNING" if is_open else _ENDS.get(end, "KILLED"),
        training=path,
        ended=None if is_open else seen.st_mtime,
        tags=tags | {"mlflow.user": user, "mlflow.source.type": "NOTEBOOK"},
    )


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _document(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
