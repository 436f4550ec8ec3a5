"""A lab's images given on: named, pushed, pulled, listed, in one file; and a lab made from an image alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ailab import __version__, engine, files, settings_file
from ailab.environments.uv_errors import room
from ailab.errors import AilabError, Conflict, NotFound, UsageError
from ailab.events import now
from ailab.i18n import _
from ailab.lab import Lab
from ailab.paths import IMAGE_HOME, SETTINGS_NAME, SHARED_FOLDERS, LabPaths, account_name, private_folder
from ailab.provision import Step
from ailab.runtimes.container import CLOSED
from ailab.settings import Settings
from ailab.settings_file import settings_from

if TYPE_CHECKING:
    from docker import DockerClient

    from ailab.images.archive import Description
    from ailab.images.readout import Carried
    from ailab.images.references import Reference
    from ailab.images.registry import Login
    from ailab.images.shelf import Shelved

# An engine is silent for long while it packs a layer, or a registry while it keeps one.
_PATIENCE = 3600.0
_VERIFY_SECONDS = 600.0


@dataclass(frozen=True)
class Shared:
    """An image here that a registry has too, as `reference` (`repository@sha256:...`)."""

    reference: str
    image: Shelved


def _patient() -> DockerClient:
    """An engine that has answered, and may take its time from now on."""
    client = engine.connect()
    client.api.timeout = int(_PATIENCE)
    return client


def chosen(lab: Lab, client: DockerClient, generation: str = "") -> Shelved:
    """The lab's image of `generation`, as it is called in images; where that is empty, the image of the generation in
    use, else of lab.lock. The newest, where there are several. Raises `NotFound`."""
    from ailab.environments.lock import read_lock
    from ailab.images import shelf

    found = shelf.find(client, lab.settings.lab.name)
    if generation:
        named = [one for one in found if one.labels.generation == generation]
        if named:
            return named[0]
        raise NotFound(
            _("There is no image of {id}.").format(id=generation), remedy=_("See those there are: ailab image list")
        )
    current, locked = lab.generations.current(), read_lock(lab.paths.lock)
    wanted = [current.lock] if current is not None else []
    wanted += [locked.digest(), locked.with_cuda().digest()] if locked is not None else []
    for lock in wanted:
        for one in found:
            if one.labels.lock == lock:
                return one
    raise NotFound(
        _("There is no image of the lab as it is now."),
        remedy=_("Build it: ailab image build"),
    )


def tag(lab: Lab, name: str, generation: str = "") -> tuple[Shelved, str]:
    """Give one of the lab's images one more name; the image, and the name in full."""
    from ailab.images import references

    wanted = references.parse(name)
    client = engine.connect()
    image = chosen(lab, client, generation)
    return image, str(_named(client, image, wanted))


def _named(client: DockerClient, image: Shelved, wanted: Reference) -> Reference:
    from ailab.images.references import Reference

    if wanted.digest:
        raise UsageError(
            _("A digest is what a registry gives, not a name."), remedy=_("Name a tag: host:5000/team/vision:tag")
        )
    whole = Reference(wanted.host, wanted.path, wanted.tag or image.labels.generation, "")
    with engine.told():
        client.api.tag(image.id, whole.repository, whole.tag)
    return whole


def push_name(settings: Settings, name: str) -> Reference:
    """Where `image push` pushes: `name`, else the place that lab.toml names. Without a tag the image's generation is
    the tag. Raises `UsageError` where there is neither."""
    from ailab.images import naming, references

    if not name and not settings.image.registry:
        raise UsageError(
            _("It is not said where to push."),
            remedy=_('Set [image] registry = "host:5000/team" in lab.toml, or: ailab image push HOST/NAME'),
        )
    return references.parse(name or naming.repository(settings.lab.name, settings.image.registry))


def push(lab: Lab, wanted: Reference, login: Login, authorities: str, step: Step, generation: str = "") -> Shared:
    """Push one of the lab's images, and write down by which digest it can be had."""
    from ailab.images.registry import Registry

    client = _patient()
    image = chosen(lab, client, generation)
    reference = _named(client, image, wanted)
    with step(_("Pushing {name}").format(name=reference)) as far:
        digest = Registry(client, login, authorities).push(reference, far)
    shared = Shared(reference.at(digest), image)
    _note_push(lab.paths, shared)
    return shared


def _note_push(lab: LabPaths, shared: Shared) -> None:
    labels = shared.image.labels
    line = {"at": now(), "who": account_name(), "reference": shared.reference, "generation": labels.generation}
    line |= {"stack": labels.stack, "lock": labels.lock}
    with lab.pushed.open("a", encoding="utf-8") as notes:
        notes.write(json.dumps(line) + "\n")


def pushed(lab: LabPaths) -> list[dict[str, str]]:
    """What was pushed from this lab, the newest first: `at`, `who`, `reference`, `generation`, `stack`, `lock`."""
    try:
        lines = lab.pushed.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    notes = []
    for line in reversed(lines):
        try:
            note = json.loads(line)
        except ValueError:  # torn by a crash
            continue
        if isinstance(note, dict):
            notes.append(note)
    return notes


def pull(wanted: Reference, login: Login, authorities: str, step: Step) -> Shared:
    """Bring an image of a lab from a registry into the engine's store, under its usual name too. Raises `Conflict`
    where it is none of ailab's; it stays in the store, for it may have been there before."""
    from ailab.images.registry import Registry

    client = _patient()
    with step(_("Pulling {name}").format(name=wanted)) as far:
        digest = Registry(client, login, authorities).pull(wanted, far)
    return Shared(wanted.at(digest), _ours(client, wanted.at(digest)))


def _ours(client: DockerClient, name: str) -> Shelved:
    """The image of a lab called `name`, also under the name that it was built as."""
    from ailab.images import naming, references, shelf

    found = shelf.get(client, name)
    if found is None or not references.is_tag(found.labels.generation):
        raise Conflict(
            _("The image {name} is not ailab's.").format(name=name),
            remedy=_("Take it away again: docker image rm {name}").format(name=name),
        )
    with engine.told():
        client.api.tag(found.id, naming.repository(found.labels.lab), found.labels.generation)
    return shelf.get(client, found.id) or found


def listed(lab: Lab) -> list[dict[str, Any]]:
    """The lab's images: those in the engine's store, newest first, then those that only a registry has."""
    from ailab.images import shelf

    found = shelf.find(engine.connect(), lab.settings.lab.name)
    current = lab.generations.current()
    rows: list[dict[str, Any]] = [
        {
            "id": one.id,
            "names": one.names,
            "generation": one.labels.generation,
            "stack": one.labels.stack,
            "lock": one.labels.lock,
            "version": one.labels.version,
            "bytes": one.size_bytes,
            "made_at": one.made_at,
            "pushed": one.digests,
        }
        for one in found
    ]
    here = {digest for one in found for digest in one.digests}
    for note in pushed(lab.paths):
        if note["reference"] not in here:
            here.add(note["reference"])
            known = {key: note[key] for key in ("generation", "stack", "lock")}
            unknown: dict[str, Any] = {"id": None, "version": None, "bytes": None, "made_at": None}
            rows.append(unknown | known | {"names": (), "pushed": (note["reference"],)})
    return [row | {"current": current is not None and row["lock"] == current.lock} for row in rows]


def bundle(lab: Lab, file: Path, sink: BinaryIO, step: Step, generation: str = "") -> Description:
    """Write one of the lab's images into `sink`, which is `file`, opened."""
    from ailab.images import archive

    client = _patient()
    image = chosen(lab, client, generation)
    labels, megabytes = image.labels, image.size_bytes // 10**6
    description = archive.Description(
        __version__, image.id, image.names, labels.lab, labels.stack, labels.generation, labels.lock
    )
    with step(_("Writing the image")) as far, engine.told(), room(file.absolute().parent, megabytes):
        # By its name, which goes with it; by its id it would be nameless where it is loaded.
        saved = client.api.get_image(image.names[0] if image.names else image.id)
        written = archive.write(
            sink, saved, description,
            lambda done: far(_("{done} of {all} MB").format(done=done // 10**6, all=megabytes)),
        )  # fmt: skip
        sink.flush()
        return written


def load(source: BinaryIO, file: Path, step: Step) -> Shelved:
    """Bring the image in `source`, which is `file`, opened, into the engine's store. A file that is not whole is
    refused before the engine sees any of it. Raises `BadImageFile`."""
    from ailab.images import archive, progress

    client = _patient()
    with step(_("Checking the file")) as far:
        description = archive.check(
            source, str(file),
            lambda done: far(_("{done} MB").format(done=done // 10**6)),
        )  # fmt: skip
    with step(_("Loading the image")) as far, engine.told():
        try:
            progress.follow(client.api.load_image(source), far)
        except progress.Refused as refused:
            raise engine.refusal(refused.message) from None
    return _ours(client, description.names[0] if description.names else description.image)


def verify(lab: Lab, generation: str, step: Step) -> dict[str, Any]:
    """Whether one of the lab's images is what lab.lock says: what `env verify --json` finds within it, in a container
    that may do nothing, and whether the lock that it was built from is the lab's."""
    from ailab.environments.lock import read_lock

    client, locked = _patient(), read_lock(lab.paths.lock)
    image = chosen(lab, client, generation)
    with step(_("Comparing every file in the image with its lock")):
        found = _within(client, image, "env", "verify", image.labels.generation, "--json")
    same = locked is not None and image.labels.lock in (locked.digest(), locked.with_cuda().digest())
    return found | {"image": image.id, "lab_lock": same, "ok": found["ok"] and same}


def _within(client: DockerClient, image: Shelved, *words: str) -> dict[str, Any]:
    """The JSON that `ailab words` prints within an image."""
    with engine.told():
        made = client.containers.create(
            image.id,
            ["--lab", str(IMAGE_HOME / "lab"), *words],
            network_mode="none",
            **CLOSED,
            tmpfs={"/tmp": "mode=1777"},  # noqa: S108  the container's own
            environment={"AILAB_LANG": "en"},
        )
        try:
            made.start()
            made.wait(timeout=_VERIFY_SECONDS)
            said, complaints = (made.logs(stdout=out, stderr=not out).decode() for out in (True, False))
        finally:
            made.remove(force=True, v=True)
    try:
        return dict(json.loads(said))
    except ValueError:
        raise AilabError(
            _("The image {name} cannot be asked.").format(name=image.names[0] if image.names else image.id),
            remedy=_("Was it made by another ailab? Build it anew: ailab image build"),
            detail=said + complaints,
        ) from None


def read_out(shared: Shared) -> Carried:
    """The lab that an image carries."""
    from ailab.images import readout

    return readout.read(engine.connect(), shared.reference)


def make_lab(root: Path, carried: Carried) -> None:
    """Make the lab of an image in `root`: its settings and lock, folders, and what its environment is. A lab of that
    image that is there already is left as it is; raises `Conflict` where it is another."""
    from ailab.environments import bytecode
    from ailab.environments.halves import COMPLETE
    from ailab.images.settings import host_settings
    from ailab.notebooks import seed

    paths = LabPaths(root)
    texts = carried.lab | {SETTINGS_NAME: host_settings(carried.lab[SETTINGS_NAME])}
    settings = settings_from(paths.settings, texts[SETTINGS_NAME])
    if paths.settings.exists():
        if paths.lock.exists() and paths.lock.read_text(encoding="utf-8") == texts["lab.lock"]:
            return
        raise Conflict(
            _("There is a lab in {path} already, and it is not the image's.").format(path=root),
            remedy=_("Choose another folder: ailab --lab DIR up --image REF"),
        )
    for name in SHARED_FOLDERS:
        (root / name).mkdir(exist_ok=True)
    for folder in (paths.state, paths.environment, paths.given):
        private_folder(folder)
    files.replace(paths.given / COMPLETE, carried.environment)
    bytecode.note_compiled(paths.given)
    files.replace_link(paths.current, paths.given)
    seed(root / "notebooks", settings.environment.stack, settings.lab.language)
    # lab.toml comes last: with it, the folder is a lab.
    for name in sorted(texts, key=lambda name: name == SETTINGS_NAME):
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (settings_file.write if name == SETTINGS_NAME else files.replace)(target, texts[name])
