"""`ailab open`: a link that logs you in, opened in the browser where there is one."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ailab.cli import labs
from ailab.cli.output import print_json, say
from ailab.errors import NotFound
from ailab.i18n import _


def open_lab(
    user: Annotated[str, typer.Option(help=_("Whom to log in; the lab's first user if not named."))] = "",
    browser: Annotated[bool, typer.Option(help=_("Whether to open a browser."))] = True,
    json: Annotated[bool, typer.Option("--json", help=_("Print one JSON object; opens nothing."))] = False,
) -> None:
    lab = labs.open_lab()
    users = lab.client.get("/api/users")
    name = user or next(iter(users), "")
    if name not in users:
        raise NotFound(
            _("There is no user {name}.").format(name=name) if name else _("The lab has no user yet."),
            remedy=_("Those there are: {names}.").format(names=", ".join(users)) if users else "ailab up",
        )
    url = lab.client.post("/api/login-links", {"name": name})["url"]
    if json:
        print_json({"url": url, "user": name})
        return
    say(_("Logs {name} in once, within 10 minutes:").format(name=name))
    say(url)
    if browser and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        import webbrowser

        webbrowser.open(url)
