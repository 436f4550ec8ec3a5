"""`ailab init`: make a lab."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ailab.cli import invocation, labs
from ailab.cli.output import print_json, say
from ailab.errors import Conflict
from ailab.i18n import _, current_language
from ailab.paths import LabPaths, private_folder, real_path

DEFAULT_STACK = "tensorflow-2.9"


def init(
    folder: Annotated[
        Path | None,
        typer.Argument(help=_("The lab's folder; it is made if need be; else --lab's, or this one.")),
    ] = None,
    stack: Annotated[str, typer.Option(help=_("The stack of its environment: ailab env stacks."))] = DEFAULT_STACK,
    port: Annotated[int, typer.Option(help=_("The web port."), min=1, max=65535)] = 8888,
    json: Annotated[bool, typer.Option("--json", help=_("End with one JSON object."))] = False,
) -> None:
    root = real_path((folder or invocation.current.lab or Path()).expanduser())
    if LabPaths(root).settings.exists():
        raise Conflict(
            _("There is a lab in {path} already.").format(path=root),
            remedy=_("Start it: ailab --lab {path} up").format(path=root),
        )
    from ailab.stacks import load_stack

    load_stack(stack)
    labs.enter(root)
    create(root, stack=stack, port=port)
    if json:
        print_json({"lab": str(root), "settings": str(LabPaths(root).settings)})
    else:
        say(_("Made a lab in {path}. Start it: ailab --lab {path} up").format(path=root))


def create(root: Path, *, stack: str = DEFAULT_STACK, port: int = 8888) -> None:
    """Write what a new lab has: lab.toml, folders, notebooks. What exists stays as it is."""
    from ailab.notebooks import seed
    from ailab.settings_file import default_document, settings_from, write
    from ailab.stacks import load_stack

    paths = LabPaths(root)
    language = current_language()
    load_stack(stack)
    for folder in (root / "notebooks", root / "models", paths.logs):
        folder.mkdir(parents=True, exist_ok=True)
    # Whose it is tells root whose the lab is, so that `env lock` and `env build` work before the first `up`.
    private_folder(paths.state)
    if not paths.settings.exists():
        name = root.name if root.name.isascii() and root.name.replace("-", "").isalnum() else "lab"
        text = default_document(name=name, language=language, stack=stack, port=port)
        settings_from(paths.settings, text)
        write(paths.settings, text)
    seed(root / "notebooks", stack, language)
