"""`ailab bundle`: a lab in one file, for machines without a network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ailab.cli import invocation, labs
from ailab.cli.output import human_size, note, print_json, say, step
from ailab.cli.person_files import a_file, new_file
from ailab.i18n import _
from ailab.paths import default_lab, real_path

Json = Annotated[bool, typer.Option("--json", help=_("End with one JSON object."))]


def app() -> typer.Typer:
    made = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    made.command("create", help=_("Pack the lab, with all that it needs, into one file."))(create)
    made.command("install", help=_("Make the same lab from such a file, without a network."))(install)
    return made


def create(file: Annotated[Path, typer.Argument(help=_("The new file."))], json: Json = False) -> None:
    from ailab import bundling

    # Opened before root is given up: it need not be where the lab's account may write.
    with new_file(file) as sink:
        lab = labs.open_lab()
        description = bundling.create(lab, file, sink, step, note)
        size = sink.tell()
    if json:
        print_json({"file": str(file), "bytes": size, "stack": description.stack, "lock": description.lock})
        return
    say(_("Wrote {file} ({size}): {stack} on Python {python}.").format(
        file=file, size=human_size(size), stack=description.stack, python=description.python))  # fmt: skip
    say(_("On the other machine: tar xf {name} program && program/ailab bundle install {name}").format(name=file.name))


def install(
    file: Annotated[Path, typer.Argument(help=_("The bundle."))],
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help=_("The lab's folder."))] = None,
    json: Json = False,
) -> None:
    from ailab import bundling
    from ailab.bundles.file import Reader

    with a_file(file, _("Name a file that ailab bundle create wrote.")) as source:
        reader = Reader(source, str(file))
        root = real_path((folder or invocation.current.lab or default_lab(os.environ)).expanduser())
        labs.enter(root)
        lab = bundling.install(reader, root, step, note)
    if json:
        generation = lab.generations.current()
        print_json({"lab": str(root), "generation": generation.id if generation is not None else ""})
        return
    say(_("The lab is in {path}. Start it: ailab --lab {path} up").format(path=root))
