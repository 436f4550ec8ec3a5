"""Half-built generations: what a kill left behind, told from what is being built right now by its lock."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from ailab import files
from ailab.paths import MachinePaths, private_folder

COMPLETE = "generation.json"


def find_halves(generations: Path) -> tuple[Path, ...]:
    """The folders of builds that were killed. Makes nothing: safe for an account that may only read."""
    return tuple(folder for folder in _incomplete(generations) if not _is_built(folder))


def _is_built(folder: Path) -> bool:
    """Whether somebody builds it now; taken for granted by an account that may not see the lock."""
    try:
        return files.is_locked(lock_of(folder))
    except PermissionError:
        return True


def remove_halves(generations: Path) -> None:
    """Remove what killed builds left behind, each under its lock, so that no new builder is in the way."""
    private_folder(MachinePaths(generations.parent).locks)
    for folder in _incomplete(generations):
        with files.locked_if_free(lock_of(folder)) as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)


def _incomplete(generations: Path) -> Iterator[Path]:
    for folder in sorted(generations.iterdir()) if generations.is_dir() else ():
        if folder.is_dir() and not folder.name.startswith(".") and not (folder / COMPLETE).exists():
            yield folder


def remove_open_locks(machine: MachinePaths) -> None:
    """Remove the locks that were beside what they stand for, where every account could hold them: those of an earlier
    ailab, and those that uv has left in what it installed into."""
    for folder in (machine.generations, machine.tools, machine.labs):
        for path in (*folder.glob(".*lock"), *folder.glob("*/.lock")):
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_mode & 0o077:
                    path.unlink()


def lock_of(folder: Path) -> Path:
    """The lock of who builds or removes the generation at `folder`."""
    return _locks(folder) / f"generation-{folder.name}.lock"


def bytecode_lock(folder: Path) -> Path:
    """The lock that is held while the bytecode of the generation at `folder` is compiled, or its folder replaced: the
    compiler would make the old folder again, for the .pyc that it was about to write."""
    return _locks(folder) / f"generation-{folder.name}.bytecode.lock"


def _locks(folder: Path) -> Path:
    return MachinePaths(folder.parent.parent).locks
