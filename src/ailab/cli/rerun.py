"""`ailab rerun`: run again exactly what a job has run."""

from __future__ import annotations

from typing import Annotated

import typer

from ailab.cli import job_words, labs
from ailab.cli.run import tell_queued
from ailab.i18n import _


def rerun(
    job: Annotated[int, typer.Argument(metavar="JOB", help=_("Its number."))],
    follow: Annotated[bool, typer.Option("--follow", "-f", help=_("Show its output until it ends."))] = False,
    json: Annotated[bool, typer.Option("--json", help=_("End with one JSON object."))] = False,
) -> None:
    actor = job_words.owner()
    lab = labs.open_lab()
    made = lab.client.post(f"/api/jobs/{job}/rerun", {"actor": actor})
    tell_queued(lab, made, follow=follow, json=json)
