"""`ailab image tag | push | pull | list | verify | bundle | load`: a lab's images given on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ailab.cli import labs
from ailab.cli.output import human_size, print_json, say, step, table
from ailab.cli.person_files import a_file, new_file
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.lab_account import reading

if TYPE_CHECKING:
    from ailab.images.shelf import Shelved
    from ailab.settings import MirrorsSection
    from ailab.sharing import Shared

Json = Annotated[bool, typer.Option("--json", help=_("End with one JSON object."))]
Generation = Annotated[
    str, typer.Option("--generation", help=_("Which image, as image list names it; else that of the lab as it is now."))
]
_LOCK_SHOWN = 12


def register(app: typer.Typer) -> None:
    app.command("list", help=_("The lab's images: here, and in registries."))(list_images)
    app.command("tag", help=_("Give an image one more name."))(tag)
    app.command("push", help=_("Push an image to a registry."))(push)
    app.command("pull", help=_("Bring an image from a registry."))(pull)
    app.command("verify", help=_("Compare every file in an image with the lock."))(verify)
    app.command("bundle", help=_("Write an image into one file, for machines without a registry."))(bundle)
    app.command("load", help=_("Bring an image from such a file into the engine."))(load)


def list_images(json: Annotated[bool, typer.Option("--json", help=_("Print JSON."))] = False) -> None:
    from ailab import sharing

    found = sharing.listed(labs.open_lab(engine=True))
    if json:
        print_json(found)
        return
    if not found:
        say(_("There is no image of this lab yet. Build it: ailab image build"))
        return
    headings = ["", _("GENERATION"), _("STACK"), _("LOCK"), _("MADE (UTC)"), _("SIZE")]
    heading, *rows = table(headings, [_row(one) for one in found]).splitlines()
    lines = [heading]
    for one, row in zip(found, rows, strict=True):
        lines += [row, *(f"     {name}" for name in (*one["names"], *one["pushed"]))]
    say("\n".join(lines))


def _row(one: dict[str, Any]) -> list[str]:
    return [
        "*" if one["current"] else "",
        one["generation"],
        one["stack"],
        one["lock"][:_LOCK_SHOWN],
        one["made_at"][:16].replace("T", " ") if one["made_at"] else "-",
        human_size(one["bytes"]) if one["bytes"] is not None else _("not here"),
    ]


def tag(
    name: Annotated[str, typer.Argument(help=_("The name, as host:5000/team/vision:autumn."))],
    generation: Generation = "",
    json: Json = False,
) -> None:
    from ailab import sharing

    image, whole = sharing.tag(labs.open_lab(engine=True), name, generation)
    if json:
        print_json(_document(image) | {"name": whole})
    else:
        say(_("{generation} is called {name} too.").format(generation=image.labels.generation, name=whole))


def push(
    name: Annotated[str, typer.Argument(help=_("Where to, as host:5000/team/vision; else as lab.toml has it."))] = "",
    generation: Generation = "",
    json: Json = False,
) -> None:
    from ailab import sharing
    from ailab.images import registry
    from ailab.paths import LabPaths
    from ailab.settings_file import load_settings

    root = labs.located()
    with reading(root):
        settings = load_settings(LabPaths(root).settings)
    wanted = sharing.push_name(settings, name)
    # What docker login has kept is the person's, whom we no longer are once root is given up.
    login = registry.login(wanted.registry, os.environ)
    authorities = _authorities(settings.mirrors)
    shared = sharing.push(labs.open_lab(engine=True), wanted, login, authorities, step, generation)
    if json:
        print_json(_shared(shared))
        return
    say(_("Pushed {reference}.").format(reference=shared.reference))
    say(_("Elsewhere: ailab image pull {reference}").format(reference=shared.reference))


def pull(
    name: Annotated[
        str, typer.Argument(metavar="REF", help=_("Which: host:5000/team/vision:tag, or with @sha256:..."))
    ],
    json: Json = False,
) -> None:
    shared = pulled(name)
    if json:
        print_json(_shared(shared))
    else:
        say(_("Pulled {reference}.").format(reference=shared.reference))
        say(_told(shared.image))


def pulled(name: str) -> Shared:
    """The image called `name`, in the engine's store. Needs no lab, and nothing of one: it is run by whoever types."""
    from ailab import sharing
    from ailab.images import references, registry

    wanted = references.parse(name)
    login = registry.login(wanted.registry, os.environ)
    return sharing.pull(wanted, login, _authorities(_mirrors()), step)


def _mirrors() -> MirrorsSection:
    """Those of the lab that we are in, if we are in one."""
    from ailab.paths import LabPaths
    from ailab.settings import MirrorsSection
    from ailab.settings_file import load_settings

    try:
        root = labs.located()
        with reading(root):
            return load_settings(LabPaths(root).settings).mirrors
    except AilabError:
        return MirrorsSection()


def _authorities(mirrors: MirrorsSection) -> str:
    from ailab import downloads

    return downloads.variables(mirrors, os.environ).get("SSL_CERT_FILE", "")


def verify(generation: Generation = "", json: Json = False) -> None:
    from ailab import sharing
    from ailab.environments.verification import Drifted

    found = sharing.verify(labs.open_lab(engine=True), generation, step)
    if json:
        print_json(found)
        raise typer.Exit(0 if found["ok"] else 1)
    if not found["lab_lock"]:
        raise Drifted(
            _("The image was built from another lock than lab.lock."), remedy=_("Build one of it: ailab image build")
        )
    if not found["ok"]:
        problems = [f"{one['name']}: {one['problem']}" for one in found["packages"]]
        problems += [f"{kind}: {path}" for kind in ("changed", "missing", "extra") for path in found[kind]]
        raise Drifted(
            _("The image is not what its lock says."),
            remedy=_("Build it anew: ailab image build --again"),
            detail="\n".join(problems),
        )
    say(_("The image is what lab.lock says: {files} files.").format(files=found["files"]))


def bundle(
    file: Annotated[Path, typer.Argument(help=_("The new file."))], generation: Generation = "", json: Json = False
) -> None:
    from ailab import sharing

    # Opened before root is given up: it need not be where the lab's account may write.
    with new_file(file) as sink:
        written = sharing.bundle(labs.open_lab(engine=True), file, sink, step, generation)
        size = sink.tell()
    if json:
        print_json({"file": str(file), "bytes": size, **_of(written)})
        return
    say(_("Wrote {file} ({size}): {generation}.").format(
        file=file, size=human_size(size), generation=written.generation))  # fmt: skip
    say(_("On the other machine: ailab image load {name}; or: docker load -i {name}").format(name=file.name))


def load(file: Annotated[Path, typer.Argument(help=_("The file."))], json: Json = False) -> None:
    """Needs no lab, as `pull`."""
    from ailab import sharing

    with a_file(file, _("Name a file that ailab image bundle wrote.")) as source:
        image = sharing.load(source, file, step)
    if json:
        print_json(_document(image))
    else:
        say(_told(image))


def _told(image: Shelved) -> str:
    labels = image.labels
    rows = [
        [_("Lab"), labels.lab],
        [_("Stack"), labels.stack],
        [_("Generation"), labels.generation],
        [_("Lock"), labels.lock[:_LOCK_SHOWN]],
        [_("Size"), human_size(image.size_bytes)],
    ]
    return table(rows[0], rows[1:])


def _document(image: Shelved) -> dict[str, Any]:
    return {"id": image.id, "names": image.names, "bytes": image.size_bytes, **_of(image.labels)}


def _of(said: Any) -> dict[str, str]:
    return {name: getattr(said, name) for name in ("lab", "stack", "generation", "lock")}


def _shared(shared: Shared) -> dict[str, Any]:
    return _document(shared.image) | {"reference": shared.reference}
