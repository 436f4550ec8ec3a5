"""The images of labs in an engine's store: what each is, what it is called, and where it was pushed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ailab.engine import told
from ailab.images import naming
from ailab.images.naming import Labels

if TYPE_CHECKING:
    from docker import DockerClient


@dataclass(frozen=True)
class Shelved:
    """An image: its id, what it says of itself, its names here, its digests in registries (`repository@digest`), its
    bytes, and when it was made (ISO 8601)."""

    id: str
    labels: Labels
    names: tuple[str, ...]
    digests: tuple[str, ...]
    size_bytes: int
    made_at: str

    @property
    def is_latest(self) -> bool:
        return any(name.endswith(f"{naming.repository(self.labels.lab)}:latest") for name in self.names)


def find(client: DockerClient, lab: str) -> list[Shelved]:
    """The images of the lab called `lab` that have a name, newest first: the one called so, then by when they were
    made, which not every builder notes."""
    with told():
        listed = client.api.images(filters={"label": f"{naming.label('lab')}={lab}"})
        seen = [client.api.inspect_image(one["Id"]) for one in listed]
    found = [shelved for one in seen if (shelved := _read(one)) is not None and (shelved.names or shelved.digests)]
    return sorted(found, key=lambda one: (one.is_latest, one.made_at), reverse=True)


def get(client: DockerClient, name: str) -> Shelved | None:
    """The image called `name`; None where there is none, or it is not ailab's."""
    from docker.errors import ImageNotFound

    with told():
        try:
            return _read(client.api.inspect_image(name))
        except ImageNotFound:
            return None


def newest(listed: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of images as the engine lists them. One that has lost its name to another is the older one, whatever the time
    that its builder noted."""
    return max(listed, key=lambda one: (bool(set(one.get("RepoTags") or []) - {"<none>:<none>"}), one["Created"]))


def tag(client: DockerClient, image: str, names: Iterable[str]) -> None:
    """Have the engine call `image` by each of `names` (`repository:tag`)."""
    with told():
        for name in names:
            repository, _colon, tag = name.rpartition(":")
            client.api.tag(image, repository, tag)


def _read(seen: dict[str, Any]) -> Shelved | None:
    labels = Labels.read(seen["Config"].get("Labels"))
    if labels is None:
        return None
    names, digests = seen.get("RepoTags") or [], seen.get("RepoDigests") or []
    return Shelved(seen["Id"], labels, tuple(names), tuple(digests), seen["Size"], seen["Created"])
