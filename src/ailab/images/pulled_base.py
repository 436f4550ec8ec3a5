"""A base from a registry: pinned by its digest, and a Debian or what descends from it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ailab import dpkg
from ailab.engine import told
from ailab.errors import UsageError
from ailab.i18n import _
from ailab.images import base, readout
from ailab.images.base import Base
from ailab.images.references import DEFAULT_HOST, Reference, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from docker import DockerClient

    from ailab.images.registry import Registry

_STATUS = f"/{dpkg.STATUS}"
_RELEASE = "/usr/lib/os-release"


def default() -> Reference:
    """The base of a lab that names none, where a registry has it."""
    return named(f"docker.io/library/debian:{base.suite()}-slim")


def named(text: str) -> Reference:
    """The image that `text` names, by its full name: Podman and buildah know no other. Raises `UsageError`."""
    found = parse(text)
    path = found.path if found.host or "/" in found.path else f"library/{found.path}"
    tag = found.tag or ("" if found.digest else "latest")
    return Reference(found.host or DEFAULT_HOST, path, tag, found.digest)


def fetch(registry: Registry, reference: Reference, tell: Callable[[str], None]) -> Base:
    """Bring the base into the engine's store, and see what it is. Raises `RegistryError`, `UsageError`."""
    return read(registry.client, reference, registry.pull(reference, tell))


def find(client: DockerClient, reference: Reference, digest: str) -> Base | None:
    """The base with this digest; None where the engine does not have it."""
    from docker.errors import ImageNotFound

    with told():
        try:
            client.api.inspect_image(reference.at(digest))
        except ImageNotFound:
            return None
    return read(client, reference, digest)


def read(client: DockerClient, reference: Reference, digest: str) -> Base:
    """What is in a base that the engine has. Raises `UsageError` where apt has nothing to say in it."""
    name = reference.at(digest)
    texts = readout.texts(client, name, (_RELEASE, _STATUS))
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', texts[_RELEASE], re.MULTILINE))
    kinds = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    if "debian" not in kinds or not texts[_STATUS]:
        raise UsageError(
            _("The base {name} is not a Debian or an Ubuntu, but {system}.").format(
                name=reference, system=release.get("PRETTY_NAME") or "?"
            ),
            remedy=_('Name one that is in lab.toml: [image] base = "debian:bookworm-slim"'),
        )
    return Base(name, digest, dpkg.packages_of(texts[_STATUS]), str(reference))
