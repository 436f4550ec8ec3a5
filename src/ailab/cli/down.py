"""`ailab down`: stop everything that `up` started, and nothing else."""

from __future__ import annotations

from typing import Annotated

import typer

from ailab.cli import labs
from ailab.cli.output import print_json, say, step
from ailab.i18n import _


def down(json: Annotated[bool, typer.Option("--json", help=_("End with one JSON object."))] = False) -> None:
    from ailab.shutdown import clear_run_folder, stop_lab

    lab = labs.open_lab()
    lab.make_private_folders()
    with step(_("Stopping the lab")):
        stopped = stop_lab(lab)
        clear_run_folder(lab)
    if json:
        print_json({"state": "stopped", "stopped": stopped})
    else:
        say(_("The lab is stopped. Start it again: ailab up") if stopped else _("Nothing was running."))
