"""`ailab jobs compare`: several jobs beside each other, with what their metrics came to."""

from __future__ import annotations

from typing import Annotated

import typer

from ailab.cli import labs
from ailab.cli.output import print_json, say
from ailab.errors import UsageError
from ailab.i18n import _


def compare(
    jobs: Annotated[list[int], typer.Argument(metavar="JOB...", help=_("Their numbers, two or more."))],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help=_("Only that one; may be given several times."))
    ] = None,
    json: Annotated[bool, typer.Option("--json", help=_("Print one JSON object."))] = False,
) -> None:
    lab = labs.open_lab()
    found = lab.client.get("/api/comparison?" + "&".join(f"job={job}" for job in jobs))
    unknown = [name for name in metric or () if name not in found["metrics"]]
    if unknown:
        raise UsageError(
            _("None of these jobs has reported {name}.").format(name=unknown[0]),
            remedy=_("What they have: {names}").format(names=", ".join(found["metrics"]) or "-"),
        )
    if json:
        print_json(found)
        return
    from ailab.cli import comparison_text

    say("\n".join(comparison_text.lines(found, metric or ())))
    if found["links"]["tensorboard"]:
        say(
            _("TensorBoard: {url}").format(
                url=lab.client.get("/api/status")["url"].rstrip("/") + found["links"]["tensorboard"]
            )
        )
