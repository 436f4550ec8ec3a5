"""`ailab image`: the lab as a container image."""

from __future__ import annotations

import typer

from ailab.cli import image_build, image_share
from ailab.i18n import _


def app() -> typer.Typer:
    made = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    made.command("build", help=_("Build the lab's image; nothing to do where nothing has changed."))(image_build.build)
    made.command("run-command", help=_("Print the line that runs it on this machine."))(image_build.run_command)
    made.command("base", help=_("Make the base image anew, of today's Debian packages."))(image_build.base)
    image_share.register(made)
    made.command("seal", hidden=True)(image_build.seal)
    return made
