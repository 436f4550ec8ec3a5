"""`ailab stop`: end jobs, with the time that they need to save their state."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from ailab.cli import job_words, labs
from ailab.cli.job_words import word
from ailab.cli.output import print_json, say, step
from ailab.errors import UsageError
from ailab.i18n import _
from ailab.waiting import wait_for

END_SECONDS = 24 * 3600.0
_ENDED = ("done", "failed", "stopped")


def stop(
    which: Annotated[list[str], typer.Argument(metavar="JOB...", help=_("Numbers of jobs, or schedule-1."))],
    no_wait: Annotated[bool, typer.Option("--no-wait", help=_("Do not wait until they have ended."))] = False,
    json: Annotated[bool, typer.Option("--json", help=_("Print a JSON list of the jobs."))] = False,
) -> None:
    actor = job_words.owner()
    lab = labs.open_lab()
    jobs = [_number(lab.client, word) for word in which]
    numbers = [number for number in jobs if number is not None]
    for number in numbers:
        lab.client.post(f"/api/jobs/{number}/stop", {"actor": actor})

    def ended() -> list[dict[str, Any]] | None:
        seen = [lab.client.get(f"/api/jobs/{number}") for number in numbers]
        return seen if no_wait or all(one["state"] in _ENDED for one in seen) else None

    with step(_("Stopping")):
        seen = wait_for(
            lambda: (found,) if (found := ended()) is not None else None, timeout=END_SECONDS, what=_("the end")
        )[0]
    if json:
        print_json(seen)
        return
    for one in seen:
        state = _("stopping") if one["stopping"] else word(one["state"])
        say(_("Job {id}: {state}. {note}").format(id=one["id"], state=state, note=one["note"]).strip())


def _number(client: Any, word: str) -> int | None:
    """The number of a job; None of a schedule, which has been removed with that."""
    if schedule := re.fullmatch(r"schedule-(\d{1,18})", word):
        client.delete(f"/api/schedules/{schedule[1]}")
        say(_("Schedule {id} is removed.").format(id=schedule[1]))
        return None
    job = re.fullmatch(r"(?:job-)?(\d{1,18})", word)
    if job is None:
        raise UsageError(_("{word} is no job's number.").format(word=word), remedy=_("See those there are: ailab jobs"))
    return int(job[1])
