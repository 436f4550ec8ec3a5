"""The labs of a machine, so that what one of them uses is not taken away by another."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ailab import files
from ailab.paths import LabPaths, MachinePaths, private_folder
from ailab.unreadable import unreadable

# As long as it may take to see what every lab uses.
_COLLECT_SECONDS = 600.0


@dataclass(frozen=True)
class KnownLab:
    """A lab's folder, and the generation that it uses."""

    root: Path
    generation: str


class Labs:
    """A file for each lab in AILAB_HOME/labs: {"root": its folder, "generation": the one in use}."""

    def __init__(self, machine: MachinePaths) -> None:
        self._folder = machine.labs
        self._locks = machine.locks

    def register(self, root: Path, generation: str) -> None:
        """Note that the lab at `root` uses `generation`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json"
        files.replace(path, json.dumps({"root": str(root), "generation": generation}))

    def known(self, *, all_of_them: bool = False) -> tuple[KnownLab, ...]:
        """Every lab with what it uses now; the file of one that has gone is removed. One whose file cannot be read is
        passed over; with `all_of_them`, for who takes away what no lab uses, that raises `Unreadable`."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                noted = json.loads(path.read_text(encoding="utf-8"))
                lab = _seen(KnownLab(Path(noted["root"]), str(noted["generation"])))
            except (FileNotFoundError, NotADirectoryError):
                path.unlink(missing_ok=True)
            except (ValueError, KeyError, TypeError) as error:
                if all_of_them:
                    raise unreadable(str(path), error) from None
            else:
                found.append(lab)
        return tuple(found)

    @contextmanager
    def switching(self) -> Iterator[None]:
        """Hold this while a lab is switched to a generation: none is collected meanwhile."""
        with self._held(shared=True):
            yield

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Hold this while generations are taken away: no lab is switched to one meanwhile."""
        with self._held(shared=False):
            yield

    @contextmanager
    def _held(self, *, shared: bool) -> Iterator[None]:
        with files.locked(private_folder(self._locks) / "labs.lock", shared=shared, timeout=_COLLECT_SECONDS):
            yield


def _seen(noted: KnownLab) -> KnownLab:
    """The lab as it is now, or as it was noted where its folder is closed to us. Raises FileNotFoundError for none."""
    try:
        return KnownLab(noted.root, LabPaths(noted.root).current.readlink().name)
    except PermissionError:
        return noted
