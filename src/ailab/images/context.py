"""The folder that an image is built from: everything that goes in, with times and modes that are always the same."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ailab.images.dockerfile import EPOCH

_BUILD = Path(__file__).with_name("build")
_FINISH = Path(__file__).with_name("finish_layer.py")


@dataclass(frozen=True)
class Packed:
    """A tar of what `make` puts into an empty folder. The key changes when that does: it is packed again only then."""

    key: str
    make: Callable[[Path], None]


@dataclass(frozen=True)
class Content:
    """What a context has, by its name in it: texts, folders and files to copy, folders of which every file is linked
    (for large files that never change), and tars."""

    texts: Mapping[str, str]
    copies: Mapping[str, Path]
    packed: Mapping[str, Packed]
    linked: Mapping[str, Path] = field(default_factory=dict)


def digest_of(content: Content) -> str:
    """The digest of all that is in a context of `content`, which need not be written for it."""
    digest = hashlib.sha256()
    for name, mode, data in _files(content):
        digest.update(json.dumps([name, mode, len(data)]).encode() + data)
    for name, packed in sorted(content.packed.items()):
        digest.update(json.dumps([name, packed.key]).encode())
    for name, source in sorted(content.linked.items()):
        for path in sorted(source.iterdir()):
            digest.update(json.dumps([name, path.name]).encode())
    return digest.hexdigest()


def write(folder: Path, content: Content) -> None:
    """Make `folder` the context of `content`. What is packed already stays."""
    folder.mkdir(parents=True, exist_ok=True)
    tars = set(content.packed) | {f"{name}.key" for name in content.packed}
    for left in folder.iterdir():
        if left.name not in tars:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    for name, mode, data in _files(content):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
    for name, packed in sorted(content.packed.items()):
        _pack(folder / name, packed)
    _set_times(folder)
    for name, source in sorted(content.linked.items()):
        (folder / name).mkdir()
        for path in sorted(source.iterdir()):
            os.link(path, folder / name / path.name)


def _files(content: Content) -> Iterator[tuple[str, int, bytes]]:
    """The texts and the copies: name, mode, what is in it."""
    for name, text in sorted(content.texts.items()):
        yield name, 0o644, text.encode()
    for name, source in sorted({"build": _BUILD, "build/finish_layer.py": _FINISH, **content.copies}.items()):
        yield from _below(source, name)


def _below(source: Path, name: str) -> Iterator[tuple[str, int, bytes]]:
    if source.is_file():
        yield name, 0o755 if os.access(source, os.X_OK) else 0o644, source.read_bytes()
        return
    for path in sorted(source.iterdir()):
        if not (path.name == "__pycache__" or path.name.startswith(".") or path.suffix == ".pyc"):
            yield from _below(path, f"{name}/{path.name}")


def _set_times(folder: Path) -> None:
    """Of all but the tars, which have been given theirs."""
    for parent, folders, names in os.walk(folder, topdown=False):
        for name in (*folders, *names):
            os.utime(Path(parent, name), (EPOCH, EPOCH))
        Path(parent).chmod(0o755)


def _pack(target: Path, packed: Packed) -> None:
    note = target.with_name(f"{target.name}.key")
    if target.exists() and note.exists() and note.read_text() == packed.key:
        return
    note.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as staging:
        packed.make(Path(staging))
        with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted(Path(staging).rglob("*")):
                _add(archive, path, str(path.relative_to(staging)))
    note.write_text(packed.key)


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    """A member that says nothing of this machine: owned by root, readable by all, of one time."""
    info = archive.gettarinfo(path, name)
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = EPOCH
    info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
    if not (info.isreg() or info.islnk()):
        archive.addfile(info)
        return
    # A second name of a file is a file of its own: which of the two comes first is chance.
    info.type, info.linkname, info.size = tarfile.REGTYPE, "", path.stat().st_size
    with path.open("rb") as source:
        archive.addfile(info, source)
