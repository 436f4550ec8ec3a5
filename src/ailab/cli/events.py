"""`ailab events`: who did what and when."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from ailab.cli import labs
from ailab.cli.output import print_json, say, table
from ailab.i18n import _


def events(
    limit: Annotated[int, typer.Option(help=_("How many, the newest first."), min=1, max=1000)] = 20,
    json: Annotated[bool, typer.Option("--json", help=_("Print a JSON list."))] = False,
) -> None:
    found = labs.open_lab().client.get(f"/api/events?limit={limit}")
    if json:
        print_json(found)
        return
    rows = [
        [
            f"{datetime.fromisoformat(event['at']).astimezone():%Y-%m-%d %H:%M:%S}",
            event["actor"],
            event["kind"],
            event["subject"],
            event["after"] or "",
            _why(event),
        ]
        for event in found
    ]
    say(table([_("WHEN"), _("WHO"), _("WHAT"), _("WHICH"), _("CHANGE"), _("WHY")], rows))


def _why(event: dict[str, Any]) -> str:
    if event["kind"] == "progress":
        from ailab.jobs.progress import ProgressEvent

        return ProgressEvent.from_json(event["after"], event["detail"]).short()
    return event["detail"].get("reason") or ""
