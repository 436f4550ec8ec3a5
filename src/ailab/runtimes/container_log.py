"""The engine's log of a container as lines, each once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from ailab.runtimes import kept_log

if TYPE_CHECKING:
    from docker import DockerClient

# How far the entries of standard output and standard error may be out of order.
_SLACK_SECONDS = 1.0
# Of a log that has been followed to its end, what is looked at once more.
_LAST_ENTRIES = 100
_END_SECONDS = 5.0


def output(client: DockerClient, container_id: str, *, follow: bool, tail: int | None) -> Iterator[str]:
    """The lines of a container's log, the last `tail` if given; with `follow` until it has ended. Raises what the SDK
    does."""
    return lines(_entries(client, container_id, follow=follow, tail=tail))


def _entries(client: DockerClient, container_id: str, *, follow: bool, tail: int | None) -> Iterator[bytes]:
    api, shown = client.api, "all" if tail is None else tail
    yield from api.logs(container_id, stream=True, follow=follow, timestamps=True, tail=shown)
    if follow:
        # What came last, and ended without a line's end, the engine may have kept back.
        api.wait(container_id, timeout=_END_SECONDS)
        yield from api.logs(container_id, stream=True, follow=False, timestamps=True, tail=_LAST_ENTRIES)


def lines(entries: Iterator[bytes]) -> Iterator[str]:
    """The lines of a log that is read with its timestamps.

    An engine that rotates a log sends what followers have read already once more (seen in Docker Engine 20.10); an
    entry's time, in nanoseconds, tells. A long line comes in several entries.
    """
    rest = b""
    for data in _once(entries):
        *whole, rest = (rest + data).split(b"\n")
        yield from map(kept_log.text, whole)
    if rest:
        yield kept_log.text(rest)


def _once(entries: Iterator[bytes]) -> Iterator[bytes]:
    newest, recent = 0.0, dict[bytes, float]()
    for entry in entries:
        stamp, _space, data = entry.partition(b" ")
        at = datetime.fromisoformat(stamp.decode()).timestamp()
        if stamp in recent or at < newest - _SLACK_SECONDS:
            continue
        newest = max(newest, at)
        recent[stamp] = at
        if len(recent) > 10_000:
            recent = {known: when for known, when in recent.items() if when >= newest - _SLACK_SECONDS}
        yield data
