"""A job's code put into a folder again, with the data that lay beside it within reach, so that it can run once more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ailab.errors import AilabError, Conflict
from ailab.i18n import _
from ailab.jobs import code_files
from ailab.jobs.code_files import LINK, PROGRAM, Bounds, Tally
from ailab.jobs.code_store import CodeStore, Row

# What would mislead the code there (the newest commit is not its own), or must stay a lab's own.
_NEVER_LINKED = {".git", ".ailab", "__pycache__"}


@dataclass(frozen=True)
class Rebuilt:
    """How many files of the code were written, and how many links made to what else is in the original folder."""

    files: int
    links: int


def materialize(store: CodeStore, code: str, folder: Path, original: Path) -> Rebuilt:
    """Make the code's files in `folder`, which is new or empty, and whole at the end or as it was.

    What else is in the `original` folder (data, outputs, secrets) is linked at the same relative path, at the top and
    in the folders that hold code; not what is code there by now and was not then. What the job writes into a linked
    folder or file is written in the original. A relative link of the code that leads out of the folder leads to where
    it led. Nothing is linked where the original is gone. Raises `Conflict` where `folder` has something in it, and as
    `CodeStore.tree` and `.read`.
    """
    rows = store.tree(code)
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(_("{folder} is not an empty folder.").format(folder=folder))
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(mode=0o700, parents=True)
        # Links last: nothing is written through one.
        for row in sorted(rows, key=lambda row: row.mode == LINK):
            _write(store, row, unfinished, original)
        links = _link_others(store, rows, unfinished, original)
        unfinished.rename(folder)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        message = _("The code cannot be written in {folder}: {reason}.")
        raise AilabError(message.format(folder=folder, reason=error.strerror or error)) from error
    return Rebuilt(len(rows), links)


def _write(store: CodeStore, row: Row, folder: Path, original: Path) -> None:
    path = folder / row.path
    path.parent.mkdir(parents=True, exist_ok=True)
    if row.mode == LINK:
        path.symlink_to(_target(row, original))
        return
    path.write_bytes(store.read(row.content))
    if row.mode == PROGRAM:
        path.chmod(path.stat().st_mode | 0o111)


def _target(row: Row, original: Path) -> str:
    """Where a link of the code leads, from its new place: within the code as before, else to the very same place."""
    above = os.path.dirname(row.path)  # noqa: PTH120  a path is text here
    led = os.path.normpath(os.path.join(above, row.content))  # noqa: PTH118
    if os.path.isabs(led) or led.split("/")[0] != "..":  # noqa: PTH117
        return row.content
    return os.path.normpath(original / led)


def _link_others(store: CodeStore, rows: Iterable[Row], folder: Path, original: Path) -> int:
    """Link what is in the original and is not code; returns how many."""
    if not original.is_dir():
        return 0
    original = original.resolve()
    with store.working() as work:
        today = code_files.find(original, work, Tally(), Bounds())
    then = {row.path for row in rows}
    code = then | {entry.path for entry in today.entries}
    links = 0
    for path in _others(original, "", code, _folders(code)):
        if not os.path.lexists(folder / path):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to(original / path)
            links += 1
    return links


def _folders(paths: Iterable[str]) -> set[str]:
    """Every folder that one of the paths is in, at whatever depth."""
    found: set[str] = set()
    for path in paths:
        above = path.rpartition("/")[0]
        while above and above not in found:
            found.add(above)
            above = above.rpartition("/")[0]
    return found


def _others(original: Path, above: str, code: set[str], holding: set[str]) -> Iterator[str]:
    """What is not code, a folder that holds none as a whole."""
    try:
        entries = sorted(os.scandir(original / above), key=lambda one: one.name)
    except OSError:
        return
    for entry in entries:
        path = f"{above}/{entry.name}" if above else entry.name
        if path in code or entry.name in _NEVER_LINKED:
            continue
        if path in holding and entry.is_dir(follow_symlinks=False):
            yield from _others(original, path, code, holding)
        else:
            yield path
