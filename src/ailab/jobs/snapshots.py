"""What a job ran: the code, the environment, the inputs and the place, written down before it starts."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ailab import __version__
from ailab.command import redact
from ailab.errors import NotFound
from ailab.events import now
from ailab.i18n import _
from ailab.jobs import code_files
from ailab.jobs.beneath import Beneath
from ailab.jobs.code_files import LINK, Bounds, Entry, LeftOut, Tally, Why
from ailab.jobs.code_store import Batch, CodeStore, Row
from ailab.jobs.fingerprints import Fingerprint, fingerprint
from ailab.jobs.git_state import Git
from ailab.jobs.known_digests import KnownDigests, same_stamps
from ailab.jobs.model import JobRequest
from ailab.runtimes.base import Stored

# A file that is written to at this moment is read again, but not for ever.
_READINGS = 3
_KEY = b"PRIVATE KEY-----"
_KEY_WITHIN = 128


@dataclass(frozen=True)
class Surroundings(Stored):
    """What a job runs in, as who starts it knows: the generation's id, Python version, lock digest and packages (name
    -> version), and the names of the GPUs that it may use."""

    generation: str = ""
    python: str = ""
    lock: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshot(Stored):
    """What a job ran. It holds no value of a variable, only names, and no credentials.

    `code` is the digest of the tree in the `CodeStore`, of `files` files and links of `code_bytes` bytes; `left_out` is
    what the folder has besides. `git` is None outside a work tree, and where git could not say (`git_problem`): then
    all files count, not only those that git does not ignore. `inputs` are the fingerprints of what the job named as its
    inputs. `taken_at` is ISO 8601 in UTC.
    """

    command: tuple[str, ...]
    cwd: str
    code: str
    files: int = 0
    code_bytes: int = 0
    left_out: tuple[LeftOut, ...] = ()
    git: Git | None = None
    git_problem: str = ""
    variables: tuple[str, ...] = ()
    seed: int | None = None
    workers: int = 1
    strategy: str = ""
    inputs: tuple[Fingerprint, ...] = ()
    generation: str = ""
    python: str = ""
    lock: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    host: str = ""
    gpus: tuple[str, ...] = ()
    ailab: str = ""
    taken_at: str = ""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        git = data.get("git")
        return super().from_json(
            {
                **data,
                "git": Git.from_json(git) if isinstance(git, dict) else git,
                "left_out": _each(LeftOut, data.get("left_out", ())),
                "inputs": _each(Fingerprint, data.get("inputs", ())),
            }
        )


def _each(kind: type[Stored], values: Iterable[Any]) -> list[Any]:
    return [kind.from_json(one) if isinstance(one, dict) else one for one in values]


def take(
    store: CodeStore,
    request: JobRequest,
    around: Surroundings,
    *,
    bounds: Bounds | None = None,
    repeats: Snapshot | None = None,
) -> Snapshot:
    """Write down what `request` is about to run, and keep its code in `store`.

    Unchanged files are not read again. Raises `NotFound` where the job's folder is not there or cannot be entered, and
    `AilabError` where the store cannot be written. `inputs` are read too: up to `fingerprints.CONTENT_BYTES` each, and
    listed, however large they are. A job that `repeats` another, in a folder that `rebuilding.materialize` made, has
    that one's code and git state: the links which are in that folder besides are no part of either.
    """
    folder = Path(request.cwd)
    with store.working() as work:
        real = _entered(folder)
        kept = _keep(store, real, work, bounds or Bounds()) if repeats is None else _kept_again(store, repeats)
        inputs = tuple(_input(store, folder, name) for name in request.inputs)
    return Snapshot(
        command=tuple(redact(word) for word in request.command),
        cwd=request.cwd,
        code=kept.code,
        files=kept.files,
        code_bytes=kept.bytes,
        left_out=kept.left_out,
        git=kept.git,
        git_problem=kept.git_problem,
        variables=tuple(sorted(request.variables)),
        seed=request.seed,
        workers=request.workers,
        strategy=request.strategy,
        inputs=inputs,
        generation=around.generation,
        python=around.python,
        lock=around.lock,
        packages=dict(around.packages),
        host=socket.gethostname(),
        gpus=tuple(around.gpus),
        ailab=__version__,
        taken_at=now(),
    )


@dataclass(frozen=True)
class _Kept:
    code: str
    files: int
    bytes: int
    left_out: tuple[LeftOut, ...]
    git: Git | None
    git_problem: str


def _entered(folder: Path) -> Path:
    """The folder by its real path."""
    try:
        real = folder.resolve(strict=True)
        with Beneath(real):
            return real
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NotFound(_("The job's folder {folder}: {reason}.").format(folder=folder, reason=reason)) from None


def _kept_again(store: CodeStore, before: Snapshot) -> _Kept:
    store.use_anew(before.code)
    return _Kept(before.code, before.files, before.code_bytes, before.left_out, before.git, before.git_problem)


def _input(store: CodeStore, folder: Path, name: str) -> Fingerprint:
    path = folder / name
    known = KnownDigests(store.index(path.absolute(), "input"))
    found = fingerprint(path, name=name, known=known)
    known.save()
    return found


def _keep(store: CodeStore, folder: Path, work: Path, bounds: Bounds) -> _Kept:
    """Keep the code below `folder`, or what of it is new."""
    tally = Tally()
    code = code_files.find(folder, work, tally, bounds)
    batch = Batch(store, work)
    known = KnownDigests(store.index(folder, "code"))
    rows: list[Row] = []
    total = 0
    with Beneath(folder) as beneath:
        reader = _Reader(store, beneath, batch, known, tally, bounds)
        for entry, row in ((entry, reader.row(entry)) for entry in code.entries):
            if row is not None:
                rows.append(row)
                total += entry.size
    digest = batch.add_tree(rows)
    batch.finish()
    known.save()
    return _Kept(digest, len(rows), total, tally.listed(), code.git, code.problem)


class _Reader:
    """Reads the files of one folder into a store, those that have changed."""

    def __init__(
        self, store: CodeStore, beneath: Beneath, batch: Batch, known: KnownDigests, tally: Tally, bounds: Bounds
    ) -> None:
        self._store = store
        self._beneath = beneath
        self._batch = batch
        self._known = known
        self._tally = tally
        self._bounds = bounds

    def row(self, entry: Entry) -> Row | None:
        """The entry with its content kept; None where it is gone, cannot be read, or is not what it was."""
        if entry.mode == LINK:
            return Row(entry.path, LINK, entry.target)
        try:
            digest = self._digest(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except _Refused as refused:
            self._tally.add(refused.why, entry.path)
            return None
        return Row(entry.path, entry.mode, digest)

    def _digest(self, path: str) -> str:
        with _reading():
            known = self._known.get(path, self._beneath.stat(path))
        if known is not None and self._store.has(known):
            return known
        for _reading_again in range(_READINGS):
            read_at = time.time_ns()
            with _reading(), self._beneath.open(path) as source:
                fileno = source.fileno()
                before = os.fstat(fileno)
                if not stat.S_ISREG(before.st_mode):
                    raise _Refused(Why.special)
                content = source.read(self._bounds.file_bytes + 1)
                steady = same_stamps(before, os.fstat(fileno))
            if steady:
                break
        if len(content) > self._bounds.file_bytes:
            raise _Refused(Why.large)
        if _KEY in content[:_KEY_WITHIN]:
            raise _Refused(Why.secret)
        digest = self._batch.add(content)
        if steady:
            self._known.put(path, before, digest, read_at=read_at)
        return digest


class _Refused(Exception):
    """A file that is left out now that it is looked into."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.value)
        self.why = why


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Tells that a file cannot be read from that the store cannot be written."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError:
        raise _Refused(Why.unreadable) from None
