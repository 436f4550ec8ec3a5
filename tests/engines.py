"""The container engine that tests use, and what they ask of it."""

from __future__ import annotations

import contextlib
import io
import socket
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
from second_engine import second_engine as second_engine

from ailab import engine
from ailab.errors import AilabError


def _why_not() -> str:
    try:
        engine.connect().close()
    except AilabError as error:
        return f"images and containers are not tested: {error.message} {error.remedy}"
    return ""


_REASON = _why_not()
needs_engine = pytest.mark.skipif(bool(_REASON), reason=_REASON)


def bridge_address(client: Any) -> str:
    """This machine's address on the engine's default bridge, which containers reach and other machines do not.

    Read from the interface: an engine that has just created its bridge, on its first start on a machine, lists no
    gateway for the network until it is restarted.
    """
    options = client.api.inspect_network("bridge")["Options"]
    addresses = psutil.net_if_addrs()[options["com.docker.network.bridge.name"]]
    return str(next(one.address for one in addresses if one.family == socket.AF_INET))


def unique_name(stem: str) -> str:
    """A lab's name, and so its images', that no other run of the tests has at this time."""
    return f"{stem}-{uuid.uuid4().hex[:8]}"


@contextmanager
def container(client: Any, image: str, **options: Any) -> Iterator[Any]:
    """A running container, gone at the end with its volumes."""
    made = client.containers.run(image, detach=True, **options)
    try:
        yield made
    finally:
        with contextlib.suppress(Exception):
            made.remove(force=True, v=True)


def log(of: Any) -> str:
    return str(of.logs().decode())


Entry = tuple[bytes, str, int, int, float, str, bytes]


def tree(client: Any, image: str) -> dict[str, Entry]:
    """The file tree of an image: path -> (type, mode, uid, gid, time, link, SHA-256 of the content)."""
    import hashlib

    made = client.api.create_container(image, command=["true"], entrypoint=[])
    try:
        found: dict[str, Entry] = {}
        with tarfile.open(fileobj=_Stream(client.api.export(made["Id"])), mode="r|") as archive:
            for member in archive:
                source = archive.extractfile(member) if member.isreg() else None
                digest = hashlib.file_digest(source, "sha256").digest() if source is not None else b""  # type: ignore[arg-type]  # a tar's member is read as it comes
                mode = oct(member.mode)
                found[member.name] = (member.type, mode, member.uid, member.gid, member.mtime, member.linkname, digest)
        return found
    finally:
        client.api.remove_container(made["Id"], v=True)


class _Stream(io.RawIOBase):
    """Chunks as they come, read like a file."""

    def __init__(self, chunks: Any) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._rest += chunk
        out, self._rest = self._rest[:size], self._rest[size:]
        return out
