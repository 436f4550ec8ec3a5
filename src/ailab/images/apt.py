"""Debian packages that go on top of a base: which, and in which versions apt would install them today."""

from __future__ import annotations

import io
import re
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ailab.engine import told
from ailab.errors import AilabError, UsageError
from ailab.i18n import _
from ailab.images.dockerfile import BUILD

if TYPE_CHECKING:
    from docker import DockerClient

RESOLVE_SECONDS = 300.0
_LABEL = "org.ailab.resolve"
_SCRIPTS = Path(__file__).with_name("build")
# Of `apt-get --simulate`, one line a package: `Inst libc6 [2.36-9] (2.36-9+deb12u1 Debian:12/stable [amd64])`.
_INSTALLED = re.compile(r"^Inst (\S+) (?:\[[^\]]*\] )?\((\S+) ", re.MULTILINE)
_UNKNOWN = re.compile(
    r"E: (?:Unable to locate package (\S+)|Package '?([^' ]+)'? has no installation candidate"
    r"|Couldn't find any package by \S+ '([^']+)')"
)


class UnknownPackage(UsageError):
    """A package that the Debian of the base does not have."""


def resolve(
    client: DockerClient, base: str, names: Sequence[str], secrets: Mapping[str, str], tell: Callable[[str], None]
) -> dict[str, str]:
    """What installing `names` in `base`, a reference, would install now, name -> version: they, and all they need.

    apt tells, in a container of the base, with the same way to downloads as a build has: `secrets` are texts by their
    id. Raises `UnknownPackage`.
    """
    tell(", ".join(names))
    _remove_left(client)
    words = ["sh", str(BUILD / "apt"), "--simulate", *names]
    with told():
        made = client.api.create_container(
            base,
            command=words,
            entrypoint=[],
            user="0",
            labels={_LABEL: ""},
            host_config=client.api.create_host_config(network_mode="host"),
        )["Id"]
        try:
            scripts = {BUILD / name: (_SCRIPTS / name).read_text(encoding="utf-8") for name in ("apt", "downloads")}
            files = scripts | {PurePosixPath("/run/secrets", name): text for name, text in secrets.items()}
            client.api.put_archive(made, "/", _packed({str(path): text for path, text in files.items()}))
            client.api.start(made)
            status = client.api.wait(made, timeout=RESOLVE_SECONDS)["StatusCode"]
            said = client.api.logs(made, stdout=True, stderr=True).decode(errors="replace")
        finally:
            client.api.remove_container(made, v=True, force=True)
    if status != 0:
        raise _refusal(said)
    return dict(_INSTALLED.findall(said))


def _remove_left(client: DockerClient) -> None:
    """Remove the containers, with their secrets, of those who were killed while they asked: nobody waits so long."""
    with told():
        for left in client.api.containers(all=True, filters={"label": _LABEL}):
            if time.time() - left["Created"] > 2 * RESOLVE_SECONDS:
                client.api.remove_container(left["Id"], v=True, force=True)


def _packed(files: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, text in files.items():
            info = tarfile.TarInfo(path.lstrip("/"))
            data = text.encode()
            info.size, info.mode = len(data), 0o600
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def _refusal(said: str) -> AilabError:
    unknown = _UNKNOWN.search(said)
    if unknown is not None:
        name = next(part for part in unknown.groups() if part)
        return UnknownPackage(
            _("Debian has no package {name} for this base.").format(name=name),
            remedy=_("Look for its name: https://packages.debian.org/{name}").format(name=name),
        )
    return AilabError(
        _("apt cannot say which Debian packages the image needs."),
        remedy=_("Check the network, or set [mirrors] apt in lab.toml to a Debian mirror."),
        detail=said,
    )
