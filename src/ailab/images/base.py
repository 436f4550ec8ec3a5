"""The base of images: a small Debian, bootstrapped from its packages, the same bytes from the same versions."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ailab import command, dpkg
from ailab.engine import told
from ailab.errors import AilabError, NotFound, UsageError
from ailab.i18n import _
from ailab.images import shelf
from ailab.images.dockerfile import EPOCH

if TYPE_CHECKING:
    from docker import DockerClient

# Debian's releases and their C libraries, oldest first.
_RELEASES = (("bookworm", (2, 36)), ("trixie", (2, 41)))
# With a host, for Podman and buildah: they would ask a registry for a name without one.
REPOSITORY = "localhost/ailab-base"
BOOTSTRAP_SECONDS = 1800.0
_NEUTRAL_MIRROR = "http://deb.debian.org/debian"
# Beyond what a Debian cannot be without.
NEEDED = (
    "ca-certificates",  # the certificate authorities that everybody trusts
    "tini",  # the first process: passes signals on, buries what is left behind
    "libnss-extrausers",  # a name for whatever uid a container runs as
)
_UNREAD = ("doc", "info", "locale", "man")
_DIGEST_SHOWN = 12
# mmdebstrap would take an option, too (a hook is a command that it runs as root), or a line with [trusted=yes].
_MIRROR = re.compile(r"(https?|file)://[^\s\[\]]+")


@dataclass(frozen=True)
class Base:
    """A base in the engine's store: what follows FROM, the digest of its one layer, its packages, name -> version.

    One from a registry has the digest that it has there, and in `source` the name. `added` is what apt installs on top
    of it, name -> version, so that it has what was `asked` for.
    """

    reference: str
    digest: str
    apt: dict[str, str]
    source: str = ""
    asked: tuple[str, ...] = ()
    added: dict[str, str] = field(default_factory=dict)


def suite(libc: str = "") -> str:
    """Return the oldest Debian release whose C library is at least `libc`, this machine's version where it is empty:
    the Pythons of an image are copied from this machine. The newest release where none is new enough."""
    numbers = (libc or platform.libc_ver()[1]).split(".")
    wanted = tuple(int(number) for number in numbers if number.isdigit())
    return next((name for name, version in _RELEASES if version >= wanted), _RELEASES[-1][0])


def reference_of(digest: str) -> str:
    return f"{REPOSITORY}:{digest.removeprefix('sha256:')[:_DIGEST_SHOWN]}"


def find(client: DockerClient, digest: str) -> str | None:
    """The reference of the base with this digest; None where the engine does not have it."""
    from docker.errors import ImageNotFound

    with told():
        try:
            layers = client.api.inspect_image(reference_of(digest))["RootFS"]["Layers"]
        except ImageNotFound:
            return None
    return reference_of(digest) if layers == [digest] else None


def bootstrap(client: DockerClient, mirror: str, tell: Callable[[str], None]) -> Base:
    """Make a base of the packages that `mirror` (empty: Debian's own) offers now, in the engine's store.

    By mmdebstrap (https://manpages.debian.org/mmdebstrap), as root or in a user namespace.
    """
    if mirror and not _MIRROR.fullmatch(mirror):
        raise UsageError(
            _("{mirror} is not the address of a Debian mirror.").format(mirror=mirror),
            remedy=_('Write one in lab.toml: [mirrors] apt = "https://deb.debian.org/debian"'),
        )
    program = shutil.which("mmdebstrap")
    if program is None:
        raise NotFound(
            _("A base image is made by mmdebstrap, which is not here."),
            remedy=_("Install it: sudo apt-get install mmdebstrap"),
        )
    with tempfile.TemporaryDirectory(prefix="ailab-base-", dir="/var/tmp") as folder:
        archive = Path(folder, "base.tar")
        words = [program, *_options(), suite(), str(archive), *([mirror] if mirror else [])]
        environment = dict(os.environ) | {"SOURCE_DATE_EPOCH": str(EPOCH)}
        try:
            command.run(
                words,
                timeout=BOOTSTRAP_SECONDS,
                env=environment,
                on_line=lambda line: tell(_shown(line)),
                tethered=(Path(folder),),
            )
        except command.CommandFailed as error:
            raise _failed(error, mirror) from error
        digest = _digest(archive)
        if find(client, digest) is None:
            tell(_("handing the image to the engine"))
            with told():
                made = json.loads(client.api.import_image_from_file(str(archive)))
            # Podman takes no tag with the file.
            shelf.tag(client, str(made["status"]), [reference_of(digest)])
        return Base(reference_of(digest), digest, packages_in(archive))


def _options() -> list[str]:
    options = ["--variant=minbase", f"--include={','.join(NEEDED)}"]
    options += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _UNREAD]
    # What is not finished is thrown away, so dpkg need not wait for the disk; the image is as it would be without.
    options.append("--dpkgopt=force-unsafe-io")
    options.append('--customize-hook=sed -i "/^force-unsafe-io$/d" "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap')
    # What is this machine's: names, resolvers, its mirror.
    options.append('--customize-hook=rm -f "$1"/etc/hostname "$1"/etc/resolv.conf; : >"$1"/etc/machine-id')
    line = f"deb {_NEUTRAL_MIRROR} {suite()} main"
    options.append(f'--customize-hook=echo "{line}" >"$1"/etc/apt/sources.list; rm -f "$1"/etc/apt/sources.list.d/*')
    return options


def _shown(line: str) -> str:
    return re.sub(r"^[IWE]: ", "", line.strip())[:60]


def _failed(error: command.CommandFailed, mirror: str) -> AilabError:
    said = error.detail
    if re.search(r"unable to pick chroot mode|newuidmap|subuid|unshare", said, re.IGNORECASE):
        return AilabError(
            _("mmdebstrap needs root, or user namespaces with subordinate ids."),
            remedy=_("Make the base as root: sudo ailab image base; or: sudo apt-get install uidmap"),
            detail=said,
        )
    if re.search(r"unable to fetch|could not resolve|failed to fetch|connection", said, re.IGNORECASE):
        return AilabError(
            _("Debian's packages could not be fetched from {mirror}.").format(mirror=mirror or _NEUTRAL_MIRROR),
            remedy=_("Check the network, or set [mirrors] apt in lab.toml to a Debian mirror."),
            detail=said,
        )
    return AilabError(
        _("The base image could not be made."), remedy=_("What mmdebstrap printed is below."), detail=said
    )


def _digest(archive: Path) -> str:
    """The digest that the engine gives to a layer: of the tar as it is, uncompressed (OCI image spec, DiffID)."""
    with archive.open("rb") as source:
        return f"sha256:{hashlib.file_digest(source, 'sha256').hexdigest()}"


def packages_in(archive: Path) -> dict[str, str]:
    """The Debian packages that are installed in the tar of a file system, name -> version."""
    with tarfile.open(archive) as tar:
        source = tar.extractfile(f"./{dpkg.STATUS}")
        assert source is not None, "a Debian has a list of its packages"
        return dpkg.packages_of(source.read().decode())
