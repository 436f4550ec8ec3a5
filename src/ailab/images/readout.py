"""A lab out of its image, without starting it: its lab.toml and lab.lock, and what its environment is."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ailab.engine import told
from ailab.environments.halves import COMPLETE
from ailab.errors import Conflict
from ailab.i18n import _
from ailab.images.dockerfile import ENVIRONMENT
from ailab.paths import IMAGE_HOME, SETTINGS_NAME

if TYPE_CHECKING:
    from docker import DockerClient

# Far more than settings, a lock and stacks of one's own take: what an image says of itself is not to be trusted.
_LARGEST = 16 * 1024**2


@dataclass(frozen=True)
class Carried:
    """What an image carries: the texts of its lab by their path in the lab, and its environment's generation.json."""

    lab: dict[str, str]
    environment: str


def read(client: DockerClient, image: str) -> Carried:
    """Raises `Conflict` where the image carries no lab."""
    with told():
        made = client.api.create_container(image, command=["true"], entrypoint=[])["Id"]
        try:
            lab = _texts(client, made, IMAGE_HOME / "lab")
            environment = _texts(client, made, ENVIRONMENT / COMPLETE)
        finally:
            client.api.remove_container(made, v=True)
    if any(name not in lab for name in (SETTINGS_NAME, "lab.lock")) or COMPLETE not in environment:
        raise Conflict(
            _("The image {image} carries no lab.").format(image=image),
            remedy=_("Ask whoever made it: ailab image build makes one that does."),
        )
    return Carried(lab, environment[COMPLETE])


def texts(client: DockerClient, image: str, paths: Sequence[str]) -> dict[str, str]:
    """The text files at `paths` in an image; an empty text for one that is not there."""
    with told():
        made = client.api.create_container(image, command=["true"], entrypoint=[])["Id"]
        try:
            return {path: _texts(client, made, Path(path)).get(Path(path).name, "") for path in paths}
        finally:
            client.api.remove_container(made, v=True)


def _texts(client: DockerClient, container: str, path: Path) -> dict[str, str]:
    """The text files at or below `path`; none where there is nothing, or not what we look for."""
    from docker.errors import NotFound

    try:
        chunks, _stat = client.api.get_archive(container, str(path))
    except NotFound:
        return {}
    data = b""
    for chunk in chunks:
        data += chunk
        if len(data) > _LARGEST:
            return {}
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts
                # Of what is in a folder, the first part is the folder's own name.
                name = PurePosixPath(*(parts[1:] if len(parts) > 1 else parts))
                content = archive.extractfile(member) if member.isreg() else None
                # Nothing outside of the lab's folder, and not its state either, where secrets are.
                if content is not None and not any(part.startswith((".", "/")) for part in name.parts):
                    found[str(name)] = content.read().decode("utf-8")
    except (tarfile.TarError, UnicodeDecodeError):
        return {}
    return found
