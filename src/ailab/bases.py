"""What a lab's images stand on: the base, and the Debian packages on top of it, as lab.lock pins them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ailab import downloads, dpkg
from ailab.errors import AilabError, Conflict
from ailab.i18n import _
from ailab.lab import Lab
from ailab.lab_account import reading
from ailab.paths import LabPaths
from ailab.provision import Step
from ailab.settings import MirrorsSection, Settings
from ailab.settings_file import load_settings, read_text, refusal_at

if TYPE_CHECKING:
    from docker import DockerClient

    from ailab.environments.lock_file import Image
    from ailab.images.base import Base
    from ailab.images.references import Reference

BOOTSTRAP = "bootstrap"
# Whether there is a registry at all is known after this many seconds of silence; one that lab.toml names may take its
# time.
_TRY_SECONDS = 10.0
_PULL_SECONDS = 600.0
_MOVED_SHOWN = 5


def ensure(root: Path, step: Step, *, renew: bool = False) -> Base:
    """The base that the lab.lock of the lab at `root` names, or a new one where it names none that lab.toml asks for;
    `renew` takes a new one in any case. Runs as whoever calls it: root, where it is root that gave the command.
    """
    from ailab import engine
    from ailab.environments.lock import read_lock
    from ailab.images import apt, base

    client, paths = engine.connect(), LabPaths(root)
    with reading(root):
        settings, locked = load_settings(paths.settings), read_lock(paths.lock)
    pinned = locked.image if locked is not None and not renew else None
    if pinned is not None and not _is_asked_for(pinned, settings.image.base):
        pinned = None
    made = _as_pinned(client, settings, pinned, step) if pinned is not None else _new(client, settings, step)
    wanted = tuple(sorted({*base.NEEDED, *settings.environment.system} - made.apt.keys()))
    if pinned is not None and wanted == pinned.asked:
        return replace(made, asked=wanted, added=pinned.added)
    if not wanted:
        return made
    with step(_("Choosing versions of Debian packages")) as far:
        try:
            with reading(root):
                way = way_to_downloads(settings.mirrors)
            added = apt.resolve(client, made.reference, wanted, way, far)
        except apt.UnknownPackage as error:
            raise refusal_at(paths.settings, ("environment", "system"), error) from None
    return replace(made, asked=wanted, added=added)


def pin(lab: Lab, base: Base) -> None:
    """Note in lab.lock, which is there, what the lab's images stand on."""
    from ailab.environments.lock import read_lock, write_lock
    from ailab.environments.lock_file import Image

    known = read_lock(lab.paths.lock)
    assert known is not None, "it has just been locked"
    image = Image(base.digest, base.apt, base.source, base.asked, base.added)
    if known.image != image:
        write_lock(lab.paths.lock, replace(known, image=image))


def tell_of_missing(lab: Lab, tell: Callable[[str], None]) -> None:
    """Of the Debian packages that lab.toml names those that the machine lacks, where tasks are its own processes."""
    from ailab.runtimes.base import Capability, TaskKind

    wanted = lab.settings.environment.system
    if not wanted or Capability.images in lab.runtime.site(TaskKind.workspace, lab.paths).capabilities:
        return
    try:
        status = Path("/", dpkg.STATUS).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    lacking = dpkg.missing(wanted, status)
    if lacking:
        for sentence in dpkg.missing_told(lacking):
            tell(sentence)


def way_to_downloads(mirrors: MirrorsSection) -> dict[str, str]:
    """What a build is told of mirrors, proxies and certificates, and no layer keeps: texts, by the id of the secret."""
    variables = downloads.variables(mirrors, os.environ)
    authority = variables.get("SSL_CERT_FILE", "")
    variables |= {"AILAB_APT": mirrors.apt} if mirrors.apt else {}
    lines = [f"{name}={shlex.quote(value)}" for name, value in sorted(variables.items()) if value != authority]
    trusted = read_text(Path(authority)) if authority else ""
    return {"downloads": "\n".join(lines) + "\n", "ca": trusted}


def _is_asked_for(pinned: Image, wish: str) -> bool:
    """Without a wish the lock's own stays, whichever it is."""
    from ailab.images import pulled_base

    return not wish or pinned.reference == ("" if wish == BOOTSTRAP else str(pulled_base.named(wish)))


def _as_pinned(client: DockerClient, settings: Settings, pinned: Image, step: Step) -> Base:
    from ailab.images import base, pulled_base

    if pinned.reference:
        reference = pulled_base.named(pinned.reference)
        here = pulled_base.find(client, reference, pinned.base)
        if here is not None:
            return here
        made = _pulled(settings, replace(reference, digest=pinned.base), _PULL_SECONDS, step)
        return replace(made, source=pinned.reference)
    known = base.find(client, pinned.base)
    if known is not None:
        return base.Base(known, pinned.base, pinned.apt)
    made = _bootstrapped(client, settings, step)
    if made.digest != pinned.base:
        moved = sorted(name for name in pinned.apt if made.apt.get(name) != pinned.apt[name])
        raise Conflict(
            _("The base image in lab.lock is not here, and Debian's packages have moved on: {packages}.").format(
                packages=", ".join(moved[:_MOVED_SHOWN]) or "?"
            ),
            remedy=_(
                "Load an image that stands on it (docker load, docker pull), or take the new one: ailab image base"
            ),
        )
    return made


def _new(client: DockerClient, settings: Settings, step: Step) -> Base:
    from ailab import engine
    from ailab.images import pulled_base, registry

    wish = settings.image.base
    if wish and wish != BOOTSTRAP:
        return _pulled(settings, pulled_base.named(wish), _PULL_SECONDS, step)
    if not wish:
        try:
            return _pulled(settings, pulled_base.default(), _TRY_SECONDS, step)
        except (registry.RegistryError, engine.EngineError):
            pass  # said by the step
    return _bootstrapped(client, settings, step)


def _pulled(settings: Settings, reference: Reference, patience: float, step: Step) -> Base:
    from ailab import engine
    from ailab.images import pulled_base
    from ailab.images.registry import Registry, login

    client = engine.connect(patience)
    registry = Registry(client, login(reference.registry, os.environ), settings.mirrors.ca_bundle)
    with step(_("Pulling {name}").format(name=reference)) as far:
        try:
            return pulled_base.fetch(registry, reference, far)
        except AilabError as error:
            far(error.message)
            raise


def _bootstrapped(client: DockerClient, settings: Settings, step: Step) -> Base:
    from ailab.images import base

    with step(_("Making the base image from Debian packages")) as far:
        return base.bootstrap(client, settings.mirrors.apt, far)
