"""The file of a bundle: a plain tar, whose last member says what it is and what every file in it hashes to.

A tar is what every machine can open with its own tools, and wheels are compressed already. The description comes last,
so that a file that was cut off has none.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from ailab.errors import AilabError
from ailab.i18n import _

FORMAT = 1
_DESCRIPTION = "bundle.json"
_CHUNK = 1 << 20


class BadBundle(AilabError):
    """A file that is no bundle, was cut off or changed, or is for another kind of machine."""

    kind = "bundle"


@dataclass(frozen=True)
class Description:
    """What a bundle is: who made it, for which machines, of what. `files` are SHA-256 by name; wheels are left out, for
    lab.lock has theirs. `bytes` is what its files take when they are unpacked."""

    ailab: str
    machine: str
    glibc: str
    stack: str
    lock: str
    python: str
    format: int = FORMAT
    bytes: int = 0
    files: dict[str, str] = field(default_factory=dict)


class Writer:
    """Writes one bundle into `sink`, file after file."""

    def __init__(self, sink: BinaryIO, tell: Callable[[str], None]) -> None:
        self._tar = tarfile.TarFile(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT)
        self._tell = tell
        self._files: dict[str, str] = {}
        self._bytes = 0
        self.left: list[str] = []

    def add(self, path: Path, name: str) -> None:
        """`path`, a file or all that is in a folder, as `name`. Links are kept as links, but for those that lead out of
        the folder: they are in `left`. Caches are left out, and so is what is no file."""
        if path.is_dir() and not path.is_symlink():
            for inner in sorted(path.iterdir()):
                if inner.name != "__pycache__" or name.startswith(("control/", "pythons/")):
                    self.add(inner, f"{name}/{inner.name}")
            return
        info = self._tar.gettarinfo(path, name)
        if info is None:  # a socket
            return
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        # A file with two names is two files.
        if info.islnk():
            info.type, info.linkname, info.size = tarfile.REGTYPE, "", path.stat().st_size
        if not _stays_inside(info, name.partition("/")[2]):
            self.left.append(name)
            return
        if info.issym():
            self._tar.addfile(info)
            return
        with path.open("rb") as source:
            hashing = _Hashing(source, hashed=not name.endswith(".whl"))
            self._tar.addfile(info, hashing)
        if hashing.hashed:
            self._files[name] = hashing.digest.hexdigest()
        self._bytes += info.size
        self._tell(_("{done} MB").format(done=self._bytes // 10**6))

    def finish(self, description: Description) -> Description:
        whole = replace(description, bytes=self._bytes, files=self._files)
        text = json.dumps(asdict(whole), indent=1).encode()
        info = tarfile.TarInfo(_DESCRIPTION)
        info.size, info.mode = len(text), 0o644
        self._tar.addfile(info, io.BytesIO(text))
        self._tar.close()
        return whole


class _Hashing:
    """A file that hashes what is read from it."""

    def __init__(self, source: IO[bytes], *, hashed: bool) -> None:
        self._source = source
        self.hashed = hashed
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        if self.hashed:
            self.digest.update(data)
        return data


class Reader:
    """One bundle, opened. Raises `BadBundle` for a file that is none or was cut off."""

    def __init__(self, source: BinaryIO, name: str) -> None:
        self._name = name
        try:
            self._tar = tarfile.TarFile(fileobj=source, mode="r")
            self._members = self._tar.getmembers()
            last = self._members[-1] if self._members else None
            if last is None or last.name != _DESCRIPTION:
                raise self._cut_off()
            text = self._content(last).read()
            self.description = self._described(text)
        except (tarfile.TarError, EOFError) as error:
            raise self._cut_off() from error

    def _cut_off(self) -> BadBundle:
        return BadBundle(
            _("{file} is no whole bundle: it was cut off, or is another file.").format(file=self._name),
            remedy=_("Copy it again, and compare: sha256sum FILE on both machines."),
        )

    def _damaged(self, name: str) -> BadBundle:
        return BadBundle(
            _("{file} was changed or damaged: {name}.").format(file=self._name, name=name),
            remedy=_("Copy it again, and compare: sha256sum FILE on both machines."),
        )

    def _described(self, text: bytes) -> Description:
        try:
            document = json.loads(text)
            if document["format"] > FORMAT:
                raise BadBundle(
                    _("{file} was made by a newer ailab ({version}).").format(
                        file=self._name, version=document["ailab"]
                    ),
                    remedy=_("Use the one inside: tar xf FILE program && program/ailab bundle install FILE"),
                )
            return Description(**document)
        except (ValueError, TypeError, KeyError) as error:
            raise self._cut_off() from error

    def _content(self, member: tarfile.TarInfo) -> IO[bytes]:
        content = self._tar.extractfile(member)
        assert content is not None, "a regular file"
        return content

    def read(self, name: str) -> bytes:
        return self._content(self._tar.getmember(name)).read()

    def extract(self, targets: Mapping[str, Path], tell: Callable[[str], None]) -> None:
        """Unpack what is below each folder of the bundle to the place that `targets` names for it.

        Nothing that it holds can leave that place. Raises `BadBundle` for a file that is not what it was.
        """
        done = 0
        for member in self._members:
            folder, _slash, rest = member.name.partition("/")
            if folder not in targets or not rest:
                continue
            if not _stays_inside(member, rest):
                raise self._damaged(member.name)
            target = targets[folder] / rest
            target.parent.mkdir(parents=True, exist_ok=True)
            if member.issym():
                target.symlink_to(member.linkname)
                continue
            wanted = self.description.files.get(member.name)
            if _unpack(self._content(member), target, hashed=wanted is not None) != wanted:
                raise self._damaged(member.name)
            # A file's time is named by its bytecode.
            target.chmod(member.mode & 0o755)
            os.utime(target, (member.mtime, member.mtime))
            done += member.size
            tell(_("{done} of {all} MB").format(done=done // 10**6, all=self.description.bytes // 10**6))


def _stays_inside(member: tarfile.TarInfo, name: str) -> bool:
    """Whether a file or link named `name` can only be, and lead, below the folder that it is unpacked to."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not (member.isreg() or member.issym()):
        return False
    leads = os.path.normpath(path.parent / member.linkname) if member.issym() else ""
    return not (leads.startswith(("/", "../")) or leads == "..")


def _unpack(content: IO[bytes], target: Path, *, hashed: bool) -> str | None:
    """Write `content` to `target`; its SHA-256 where it is asked for."""
    digest = hashlib.sha256()
    with target.open("wb") as sink:
        while data := content.read(_CHUNK):
            sink.write(data)
            if hashed:
                digest.update(data)
    return digest.hexdigest() if hashed else None
