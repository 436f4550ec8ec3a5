"""`ailab verify`: prove the environment in the lab's own kernel."""

from __future__ import annotations

from typing import Annotated

import typer

from ailab.cli import image_share, labs
from ailab.cli.output import print_json, say, step
from ailab.errors import AilabError, NotFound
from ailab.i18n import _


def verify(json: Annotated[bool, typer.Option("--json", help=_("Print one JSON object."))] = False) -> None:
    from ailab import provision
    from ailab.environments import kernel

    lab = labs.open_lab()
    generation = lab.generations.current()
    if generation is None:
        raise NotFound(_("The environment is not built yet."), remedy=_("Build and start it: ailab up"))
    if provision.given_environment(lab) is not None:
        image_share.verify(json=json)
        return
    lab.make_private_folders()
    with step(_("Running the proof in the lab's kernel")):
        document, text = kernel.verify(generation, provision.stack_of(lab, generation), lab.paths)
    if json:
        print_json(document)
        raise typer.Exit(0 if document["ok"] else 1)
    say(text)
    if not document["ok"]:
        raise AilabError(_("The product of the matrices is wrong."), remedy=kernel.build_again())
