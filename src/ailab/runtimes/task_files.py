"""What is kept in a task's folder, whichever runtime keeps it: the specification, and how the last attempt ended."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

from ailab import files
from ailab.errors import UsageError
from ailab.i18n import _
from ailab.runtimes.base import Seen, TaskSpec, TaskState
from ailab.unreadable import READ_ERRORS

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# What `exit.json` says nothing of: who ran, which has ended.
_OF_THE_LIVING = ("state", "pid", "account")


def folder_of(tasks: Path, task_id: str) -> Path:
    """The folder of a task below that of all. Raises `UsageError` for an id that could mean another place."""
    if not _ID.fullmatch(task_id):
        raise UsageError(_("{id} will not do as a task's id.").format(id=repr(task_id)))
    return tasks / task_id


def ids(tasks: Path) -> list[str]:
    if not tasks.is_dir():
        return []
    return sorted(folder.name for folder in tasks.iterdir() if (folder / "spec.json").exists())


def read_kept(folder: Path) -> dict[str, Any] | None:
    """`spec.json`: the specification, the attempt, what the runtime adds for itself; None before the first start, and
    where it cannot be read (`unknown`)."""
    kept = files.read_json(folder / "spec.json")
    return kept if kept is not None and "spec" in kept and _is_readable(kept) else None


def _is_readable(kept: dict[str, Any]) -> bool:
    return isinstance(kept.get("attempt"), int) and isinstance(kept.get("spec", {}), dict)


def unknown(folder: Path, *names: str) -> Seen | None:
    """How a task is of which one of the named files is there and cannot be read: it may run or not, and its end may
    have been written down, so nothing is concluded. None where all can be."""
    for name in names:
        document = files.read_json(folder / name)
        lacks = document is None or not _is_readable(document) or (name == "spec.json" and "spec" not in document)
        if lacks and (folder / name).exists():
            return Seen(TaskState.unknown, reason=_("{file} cannot be read.").format(file=folder / name))
    return None


def identity(folder: Path) -> list[int]:
    """Device and inode of a task's folder, kept with its specification: a copy of the folder has others."""
    seen = folder.stat()
    return [seen.st_dev, seen.st_ino]


def is_own(folder: Path, kept: dict[str, Any]) -> bool:
    """Whether what was started was started from this folder, not from one that it is a copy of."""
    return kept.get("place") in (None, identity(folder))


def write_kept(folder: Path, kept: dict[str, Any]) -> None:
    files.replace(folder / "spec.json", json.dumps(kept), mode=0o600)


def read_spec(folder: Path) -> TaskSpec | None:
    kept = read_kept(folder)
    try:
        return None if kept is None else TaskSpec.from_json(kept["spec"])
    except READ_ERRORS:
        return None


def read_end(folder: Path, attempt: int) -> Seen | None:
    """How that attempt ended; None while it has not, or before that has been written down."""
    end = files.read_json(folder / "exit.json")
    if end is None or end.get("attempt") != attempt:
        return None
    try:
        return Seen.from_json({**end, "state": TaskState.exited})
    except READ_ERRORS as error:
        return Seen(TaskState.unknown, reason=f"{folder / 'exit.json'}: {error}", attempt=attempt)


def write_end(folder: Path, seen: Seen) -> Seen:
    """Write down how an attempt ended. On a full disk nothing is written: the next look comes to the same end."""
    end = {key: value for key, value in seen.to_json().items() if key not in _OF_THE_LIVING}
    with contextlib.suppress(OSError):
        files.replace(folder / "exit.json", json.dumps(end), mode=0o600)
    return seen


def has_had(seen: Seen, spec: TaskSpec) -> bool:
    """Whether a task that does not run has had the attempt that it is to be started as. Of one that never began only
    the wish is known: who started it was interrupted."""
    return 0 < spec.attempt <= seen.attempt and seen.started_at is not None
