"""The file of `image bundle`: what `docker save` writes, and one more member at its end that says what it is.

`docker load` takes such a file too, and passes over that member. It comes last: a file that was cut off has none.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import BinaryIO

from ailab.errors import AilabError
from ailab.i18n import _

FORMAT = 1
_DESCRIPTION = "ailab-image.json"
_CHUNK = 1 << 20
_LARGEST_DESCRIPTION = 1 << 20


class BadImageFile(AilabError):
    """A file that `image bundle` did not write, or that was cut off or changed."""

    kind = "image-file"


@dataclass(frozen=True)
class Description:
    """What is in the file: an image of which lab, stack, generation and lock, its names and its id in the engine that
    it comes from, by which ailab. `bytes` is where this description begins, and `sha256` is of all before it."""

    ailab: str
    image: str
    names: tuple[str, ...]
    lab: str
    stack: str
    generation: str
    lock: str
    format: int = FORMAT
    bytes: int = 0
    sha256: str = ""


def write(sink: BinaryIO, saved: Iterable[bytes], description: Description, tell: Callable[[int], None]) -> Description:
    """Write `saved`, the engine's tar of an image, and what it is; `tell` hears the bytes that are done."""
    hashing = _Hashing(sink, tell)
    with (
        tarfile.open(fileobj=_Chunks(saved), mode="r|") as source,  # type: ignore[call-overload]  # read is all it asks
        tarfile.TarFile(fileobj=hashing, mode="w", format=tarfile.PAX_FORMAT) as target,  # type: ignore[arg-type]
    ):
        for member in source:
            target.addfile(member, source.extractfile(member) if member.isreg() else None)
        whole = replace(description, bytes=hashing.count, sha256=hashing.digest.hexdigest())
        text = json.dumps(asdict(whole), indent=1).encode()
        info = tarfile.TarInfo(_DESCRIPTION)
        info.size, info.mode = len(text), 0o644
        target.addfile(info, io.BytesIO(text))
    return whole


def check(source: BinaryIO, name: str, tell: Callable[[int], None]) -> Description:
    """What is in the file called `name`, every byte of it compared. Raises `BadImageFile`."""
    description = _described(source, name)
    source.seek(0)
    digest, left = hashlib.sha256(), description.bytes
    while left and (data := source.read(min(_CHUNK, left))):
        digest.update(data)
        left -= len(data)
        tell(description.bytes - left)
    source.seek(0)
    if left or digest.hexdigest() != description.sha256:
        raise BadImageFile(
            _("{file} was changed or damaged.").format(file=name),
            remedy=_("Copy it again, and compare: sha256sum FILE on both machines."),
        )
    return description


def _described(source: BinaryIO, name: str) -> Description:
    source.seek(0)
    try:
        with tarfile.TarFile(fileobj=source, mode="r") as archive:
            last = archive.getmembers()[-1]
            content = archive.extractfile(last)
            if last.name != _DESCRIPTION or content is None or last.size > _LARGEST_DESCRIPTION:
                raise ValueError
            document = json.loads(content.read())
        if document["format"] > FORMAT:
            raise BadImageFile(
                _("{file} was made by a newer ailab ({version}).").format(file=name, version=document["ailab"]),
                remedy=_("The engine itself can read it: docker load -i FILE"),
            )
        description = Description(**document | {"names": tuple(document["names"])})
        if description.bytes != last.offset:
            raise ValueError
    except (tarfile.TarError, EOFError, IndexError, ValueError, TypeError, KeyError) as error:
        raise BadImageFile(
            _("{file} is no whole image file: it was cut off, or is another file.").format(file=name),
            remedy=_("It is written by: ailab image bundle FILE. Copy it again, and compare: sha256sum FILE"),
        ) from error
    return description


class _Chunks:
    """Chunks as they come, to be read like a file."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)

    def read(self, _size: int) -> bytes:
        """The next chunk, whatever its size is; tarfile takes it so."""
        return next((chunk for chunk in self._chunks if chunk), b"")


class _Hashing:
    """A file to write that hashes and counts what is written to it."""

    def __init__(self, sink: BinaryIO, tell: Callable[[int], None]) -> None:
        self._sink = sink
        self._tell = tell
        self.digest = hashlib.sha256()
        self.count = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.count += len(data)
        self._tell(self.count)
        return self._sink.write(data)

    def tell(self) -> int:
        return self.count
