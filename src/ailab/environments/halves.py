"""Half-built generations: what a kill left behind, told from what is being built right now by its lock."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from ailab import files

COMPLETE = "generation.json"


def find_halves(generations: Path) -> tuple[Path, ...]:
    """The folders of builds that were killed. Makes nothing: safe for an account that may only read."""
    return tuple(folder for folder in _incomplete(generations) if not files.is_locked(_lock_of(folder)))


def remove_halves(generations: Path) -> None:
    """Remove what killed builds left behind, each under its lock, so that no new builder is in the way."""
    for folder in _incomplete(generations):
        with files.locked_if_free(_lock_of(folder)) as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)


def _incomplete(generations: Path) -> Iterator[Path]:
    for folder in sorted(generations.iterdir()) if generations.is_dir() else ():
        if folder.is_dir() and not folder.name.startswith(".") and not (folder / COMPLETE).exists():
            yield folder


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")
