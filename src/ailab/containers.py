"""A person's workspace as a task: where it runs decides what it is given; in a container an image, mounts, a home."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ailab.errors import NotFound
from ailab.i18n import _
from ailab.lab import Lab
from ailab.paths import GROUP_FOLDER, IMAGE_HOME, SHARED_FOLDERS, LabPaths, MachinePaths, private_folder
from ailab.runtimes.base import Capability, Mount, Site, TaskKind, TaskSpec

# Variables of ours that are of this machine, and say nothing or something wrong in an image.
_STAY_HERE = ("PATH", "HOME", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
# Where a container finds the certificates that this machine trusts.
_CERTIFICATES = "/etc/ailab-certificates.pem"
_PATH = "/usr/local/bin:/usr/bin:/bin"


def workspace_of(lab: Lab, user: str, variables: Mapping[str, str]) -> TaskSpec:
    """The specification of a person's workspace as it is to run now; the folder of its socket is made. `variables` are
    the hub's.

    Raises `NotFound` where the image that it would run in has not been built, `SettingsError` for a mount that cannot
    serve, `EngineError` where there is no engine.
    """
    from ailab.access.services import workspace_spec

    site = lab.runtime.site(TaskKind.workspace, lab.paths)
    spec = workspace_spec(lab.settings, lab.paths, site, user, variables)
    folder = lab.paths.workspace_socket(user).parent
    private_folder(folder.parent)
    private_folder(folder, GROUP_FOLDER)
    if Capability.images not in site.capabilities:
        return spec
    door = Mount(str(folder), str(site.lab.workspace_socket(user).parent))
    return contained(lab, spec, site, user, sockets=(door,))


def contained(
    lab: Lab, spec: TaskSpec, site: Site, user: str, more: tuple[Mount, ...] = (), sockets: tuple[Mount, ...] = ()
) -> TaskSpec:
    """A task of `user` as it runs in the image of the lab's environment, with the mounts that all have, `more` in its
    own folder, and `sockets` in its run folder. Raises what `workspace_of` does."""
    from ailab import mounting

    mounting.check(lab)
    image, generation = image_for(lab)
    home = _prepare(lab, site, user, generation)
    for mount in more:
        # Where something is mounted there is a folder; the engine would make it, as root.
        (home / Path(mount.target).relative_to(site.lab.root)).mkdir(parents=True, exist_ok=True)
    environment, certificates = _environment(spec, site, user)
    return replace(
        spec,
        image=image,
        mounts=(*_mounts(lab, site, home), *more, *sockets, *certificates),
        environment=environment,
        gpus=_gpus(lab) if spec.gpus is None else spec.gpus,
    )


def refuse_without_engine(lab: Lab) -> None:
    """Raises `EngineError` where tasks of the lab are to be containers, and there is no engine that runs them."""
    from ailab import engine

    if Capability.images in lab.runtime.site(TaskKind.workspace, lab.paths).capabilities:
        engine.connect()


def image_for(lab: Lab) -> tuple[str, str]:
    """The image of the lab's environment in use: its id, and the name of the generation within it. The newest, where
    several were built from the same lock.

    Raises `NotFound` where there is none, and `EngineError` where there is no engine.
    """
    from ailab import engine, provision
    from ailab.images import naming, shelf

    current = lab.generations.current()
    lock = current.lock if current is not None else ""
    client = engine.connect()
    with engine.told():
        wanted = {"label": [f"{naming.label('lock')}={lock}", naming.label("generation")]}
        found = client.api.images(filters=wanted)
    if not found and provision.given_environment(lab) is not None:
        raise NotFound(
            _("The image that the lab was made from is not in the engine's store."),
            remedy=_("Bring it from the registry: ailab image pull REF"),
        )
    if current is None or not found:
        raise NotFound(
            _("The lab's environment {id} has not been built as an image.").format(id=current.id if current else "-"),
            remedy=_("Build it: ailab image build"),
        )
    newest = shelf.newest(found)
    return str(newest["Id"]), str(newest["Labels"][naming.label("generation")])


def _prepare(lab: Lab, site: Site, user: str, generation: str) -> Path:
    """What a container has as the lab's folder: a person's own, in which the shared folders are mounted. Returns it."""
    from ailab import files, standing
    from ailab.environments.kernel import write_workspace_kernel

    private_folder(lab.paths.workspaces)
    own = LabPaths(private_folder(lab.paths.workspaces / user))
    for folder in (own.state, own.environment, own.state / "home", own.state / "run", own.trainings):
        private_folder(folder)
    # Where something is mounted there is a folder; the engine would make it, as root.
    for name in (*SHARED_FOLDERS, *lab.settings.mounts):
        (own.root / name).mkdir(exist_ok=True)
    files.replace_link(own.current, MachinePaths(IMAGE_HOME).generations / generation)
    current = lab.generations.current()
    write_workspace_kernel(own, current.title if current is not None else generation, seen_at=site.lab)
    standing.name_account(own.state / "users", user, site.lab.state / "home")
    return own.root


def _mounts(lab: Lab, site: Site, home: Path) -> tuple[Mount, ...]:
    """A person's own folder, what all share, and of the lab's sockets the hub's and MLflow's alone: read-only, so that
    nobody can put others in their place."""
    there = site.lab
    shared = {name: Mount(str((lab.paths.root / name).resolve()), str(there.root / name)) for name in SHARED_FOLDERS}
    shared |= {
        name: Mount(str(Path(mount.path).resolve()), str(there.root / name), mount.read_only)
        for name, mount in lab.settings.mounts.items()
    }
    return (
        Mount(str(home), str(there.root)),
        *shared.values(),
        Mount("", str(there.run)),
        Mount(str(lab.paths.hub_socket.parent), str(there.hub_socket.parent), read_only=True),
        Mount(str(lab.paths.mlflow_socket.parent), str(there.mlflow_socket.parent), read_only=True),
    )


def _environment(spec: TaskSpec, site: Site, user: str) -> tuple[dict[str, str], tuple[Mount, ...]]:
    """The variables as they hold in a container, and the mount of the certificates that they name."""
    kept = {name: value for name, value in spec.environment.items() if name not in _STAY_HERE}
    bundles = {value for name, value in kept.items() if _is_bundle(name, value)}
    kept = {name: _CERTIFICATES if value in bundles else value for name, value in kept.items()}
    kept.pop("SSL_CERT_DIR", None)
    kept |= {"PATH": _PATH, "HOME": str(site.lab.state / "home"), "USER": user, "LOGNAME": user, "SHELL": "/bin/bash"}
    return kept, tuple(Mount(bundle, _CERTIFICATES, read_only=True) for bundle in sorted(bundles)[:1])


def _is_bundle(name: str, value: str) -> bool:
    return ("CERT" in name or "CA" in name) and Path(value).is_file() and os.access(value, os.R_OK)


def _gpus(lab: Lab) -> tuple[str, ...] | None:
    """All GPUs of the machine, by their numbers; None where there is none, or none is to be used."""
    from ailab.resources.detect import detect_machine

    found = tuple(str(gpu.index) for gpu in detect_machine().gpus)
    return found if found and lab.settings.environment.gpu != "off" else None
