"""Where the code that jobs ran is kept: each content once, by its digest, and lists of files that name contents.

objects/ab/cdef...   the content with the SHA-256 abcdef..., as a zlib stream, mode 0400
trees/<digest>.json  a sorted list of [path, mode, digest or link's target]; the file's SHA-256 is the code's id
index/               digests that need not be computed again (`known_digests`)
work/                what is being written; what a kill left there goes a day later
lock                 held shared by who adds, alone by who collects
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ailab import files
from ailab.errors import AilabError, NotFound
from ailab.i18n import _
from ailab.paths import private_folder

# What is younger is kept, whoever names it or not: its job may be about to be written down.
YOUNG_SECONDS = 3600.0
# As long as it may take to look through a large store.
_STORE_SECONDS = 600.0
_INDEX_SECONDS = 30 * 86400.0
# Waits for the disk side by side share its journal's writes: 2000 files took 0.5 s so, and 13 s one after the other.
_WAITING = 16
_SAMPLE_BYTES = 65536
_WORTH_PACKING = 0.9
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Row:
    """A file of a tree: `mode` as git writes it (100644, 100755, 120000), `content` the digest or the link's target."""

    path: str
    mode: str
    content: str


@dataclass(frozen=True)
class Collected:
    """What a collection took away: trees, contents, and the bytes on disk that this freed."""

    trees: int
    objects: int
    freed_bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class CodeStore:
    """The code of a lab's jobs, below `root`, which only the lab's account can enter, and no one else writes to."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def objects(self) -> Path:
        return self.root / "objects"

    @property
    def trees(self) -> Path:
        return self.root / "trees"

    def index(self, folder: Path, kind: str) -> Path:
        """The file of what is known of one folder; `kind` keeps apart who looks at it differently."""
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
        return self.root / "index" / f"{kind}-{name}.json"

    @contextmanager
    def working(self) -> Iterator[Path]:
        """A temporary folder on the store's disk; nothing is collected meanwhile.

        Raises `AilabError` where the store cannot be written, as when the disk is full: then nothing was added but
        contents that nobody names.
        """
        try:
            private_folder(self.root)
            lock = files.locked(self.root / "lock", shared=True, timeout=_STORE_SECONDS)
            with lock, files.work_folder(self.root / "work") as folder:
                yield folder
        except OSError as error:
            raise AilabError(
                _("The snapshot cannot be written in {folder}: {reason}.").format(
                    folder=self.root, reason=error.strerror or error
                ),
                remedy=_("Make room on that disk, or correct the folder's owner."),
            ) from error

    def has(self, digest: str) -> bool:
        return self.object_file(digest).exists()

    def read(self, digest: str) -> bytes:
        """A content. Raises `NotFound` where it is not kept (any more), `AilabError` where it is damaged."""
        try:
            content = zlib.decompress(self.object_file(digest).read_bytes())
        except FileNotFoundError:
            raise _gone(digest) from None
        except (OSError, zlib.error) as error:
            raise _damaged(self.object_file(digest), str(error)) from error
        if _digest(content) != digest:
            raise _damaged(self.object_file(digest), "SHA-256")
        return content

    def tree(self, digest: str) -> tuple[Row, ...]:
        """The files of a code, sorted by path. Raises as `read`."""
        file = self.tree_file(digest)
        try:
            text = file.read_bytes()
        except FileNotFoundError:
            raise _gone(digest) from None
        except OSError as error:
            raise _damaged(file, str(error)) from error
        if _digest(text) != digest:
            raise _damaged(file, "SHA-256")
        return tuple(Row(*row) for row in json.loads(text))

    def use_anew(self, tree: str) -> None:
        """Make a tree young again, so that it is not collected before its next user is written down. Raises `NotFound`
        where it is not kept any more."""
        try:
            os.utime(self.tree_file(tree))
        except FileNotFoundError:
            raise _gone(tree) from None

    def object_file(self, digest: str) -> Path:
        _check(digest)
        return self.objects / digest[:2] / digest[2:]

    def tree_file(self, digest: str) -> Path:
        _check(digest)
        return self.trees / f"{digest}.json"


class Batch:
    """New contents that come into a store together: all are on the disk before the first has its name, so that what has
    a name is whole after a kill, a full disk or a power cut."""

    def __init__(self, store: CodeStore, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._new: dict[Path, Path] = {}

    def add(self, content: bytes) -> str:
        """The content's digest."""
        digest = _digest(content)
        self._write(self._store.object_file(digest), lambda: _packed(content))
        return digest

    def add_tree(self, rows: Sequence[Row]) -> str:
        """The digest of a list of files whose contents are added; it comes last of the batch."""
        listed = [[row.path, row.mode, row.content] for row in sorted(rows, key=lambda row: row.path)]
        text = json.dumps(listed, separators=(",", ":")).encode("ascii")
        digest = _digest(text)
        target = self._store.tree_file(digest)
        self._write(target, lambda: text)
        with contextlib.suppress(NotFound):
            self._store.use_anew(digest)
        return digest

    def _write(self, target: Path, content: Callable[[], bytes]) -> None:
        if target in self._new or target.exists():
            return
        unfinished = self._folder / f"{len(self._new)}.new"
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        with os.fdopen(descriptor, "wb") as sink:
            sink.write(content())
        self._new[target] = unfinished

    def finish(self) -> None:
        """Put all in place. The order of the renames is kept by a journaling file system: a tree that is there after a
        power cut has its contents."""
        with ThreadPoolExecutor(_WAITING) as waiting:
            list(waiting.map(_sync, self._new.values()))
        folders = {target.parent for target in self._new}
        for folder in folders:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for target, unfinished in self._new.items():
            unfinished.rename(target)
        self._new.clear()


def collect(store: CodeStore, needed: Callable[[], Collection[str]], *, now: float | None = None) -> Collected:
    """Take away the trees that are not `needed` (the `code` of every snapshot that counts; asked for once nobody can
    add one), and the contents that no tree names any more. What is younger than `YOUNG_SECONDS` stays, and nobody adds
    meanwhile: so a snapshot that is being taken, or whose job is not written down yet, loses nothing. `now` is in
    seconds since the epoch."""
    limit = (time.time() if now is None else now) - YOUNG_SECONDS
    private_folder(store.root)
    with files.locked(store.root / "lock", timeout=_STORE_SECONDS):
        keep = needed()
        named: set[str] = set()
        going: list[Path] = []
        for file in sorted(store.trees.glob("*.json")):
            if file.stem in keep or file.stat().st_mtime > limit:
                named |= _named_by(store, file.stem)
            else:
                going.append(file)
        freed = sum(_remove(file) for file in going)
        old = [file for file in store.objects.glob("*/*") if _name(file) not in named and file.stat().st_mtime <= limit]
        freed += sum(_remove(file) for file in old)
        for file in (store.root / "index").glob("*.json"):
            if file.stat().st_mtime < limit - _INDEX_SECONDS:
                _remove(file)
    return Collected(len(going), len(old), freed)


def _named_by(store: CodeStore, tree: str) -> set[str]:
    """The contents that a tree names; one that cannot be read names none that could be used."""
    try:
        return {row.content for row in store.tree(tree)}
    except AilabError:
        return set()


def _name(file: Path) -> str:
    return file.parent.name + file.name


def _remove(file: Path) -> int:
    """The bytes on disk that this frees."""
    freed = file.stat().st_blocks * 512
    file.unlink()
    return freed


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _packed(content: bytes) -> bytes:
    """A zlib stream (RFC 1950); of what does not get smaller, as pictures, one that only wraps it."""
    sample = content[:_SAMPLE_BYTES]
    smaller = len(zlib.compress(sample, 1)) < _WORTH_PACKING * len(sample)
    return zlib.compress(content, 6 if smaller else 0)


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check(digest: str) -> None:
    if not _DIGEST.fullmatch(digest):
        raise _gone(digest)


def _gone(digest: str) -> NotFound:
    return NotFound(_("The code {digest} is not kept (any more).").format(digest=digest[:12] or "-"))


def _damaged(file: Path, reason: str) -> AilabError:
    return AilabError(
        _("{file} is damaged: {reason}.").format(file=file, reason=reason),
        remedy=_("Remove it; the next snapshot of the same files writes it anew."),
    )
