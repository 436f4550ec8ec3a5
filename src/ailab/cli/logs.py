"""`ailab logs`: the output of a job, or of any task of the lab."""

from __future__ import annotations

import re
import time
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ailab.cli import labs
from ailab.cli.output import note
from ailab.errors import NotFound
from ailab.i18n import _
from ailab.jobs.gangs import tasks_among
from ailab.jobs.output import Output
from ailab.runtimes.base import TaskState
from ailab.waiting import wait_for

if TYPE_CHECKING:
    from ailab.lab import Lab

QUEUE_SECONDS = 366 * 86400.0
# For so long nobody asks why nothing comes.
PATIENCE_SECONDS = 2.0
_ENDED = ("done", "failed", "stopped")


def logs(
    which: Annotated[
        str, typer.Argument(metavar="JOB", help=_("A job's number, 7.1 for one of its workers, or a task's name: hub."))
    ],
    following: Annotated[bool, typer.Option("--follow", "-f", help=_("Go on until it has ended."))] = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", help=_("The last lines only."), min=1)] = None,
) -> None:
    lab = labs.open_lab()
    job, member = _asked(which)
    if job is None:
        _of_task(lab, which, following=following, tail=tail)
        return
    waits = "" if tasks_among(lab.runtime.tasks(), job)[member or 0 :] else _state(lab, job, member)
    if following:
        raise typer.Exit(follow(lab, job, tail, member))
    if waits:
        note(_("Job {id} has no output yet: it is {state}.").format(id=job, state=waits))
    for line in Output(lab.runtime, job, member).lines(tail):
        print(line)


def _asked(which: str) -> tuple[int | None, int | None]:
    """The job's number and its member's; None for what is not named."""
    found = re.fullmatch(r"(?:job-)?(\d{1,18})(?:\.(\d{1,9}))?", which)
    if found is None:
        return None, None
    return int(found[1]), int(found[2]) if found[2] else None


def _of_task(lab: Lab, task: str, *, following: bool, tail: int | None) -> None:
    if lab.runtime.poll(task).state == TaskState.absent:
        raise NotFound(_("There is no task {task}.").format(task=task), remedy=_("See those there are: ailab status"))
    for line in lab.runtime.logs(task, follow=following, tail=tail):
        print(line, flush=following)


def _state(lab: Lab, job: int, member: int | None) -> str:
    """A job's state, in a word. Raises `NotFound` for a member that the job does not have, and for one whose output was
    removed."""
    from ailab.cli.job_words import word
    from ailab.jobs.view import removed_note

    seen = lab.client.get(f"/api/jobs/{job}")
    if seen["files_removed"] is not None:
        raise NotFound(
            removed_note(job, seen["files_removed"]), remedy=_("Run it again: ailab rerun {id}").format(id=job)
        )
    if member is not None and member >= len(seen["members"]):
        raise NotFound(
            _("Job {id} has no worker {number}.").format(id=job, number=member),
            remedy=_("See those it has: ailab jobs show {id}").format(id=job),
        )
    return word(seen["state"])


def follow(lab: Lab, job: int, tail: int | None = None, member: int | None = None) -> int:
    """Show a job's output, of all its attempts and of all its tasks or of one, until it has ended; the exit status of a
    command that has followed it: 0 where it is done. Ctrl-C ends the looking, not the job."""
    output = Output(lab.runtime, job, member)
    try:
        attempt, patience = 0, _Patience()
        while True:
            what = _("job {id}").format(id=job)
            seen = wait_for(partial(_begun, lab, job, attempt, patience), timeout=QUEUE_SECONDS, what=what, last=0.5)
            if seen["state"] in _ENDED and seen["attempt"] <= attempt:
                return _tell_end(seen)
            attempt = seen["attempt"]
            if seen["started_at"] is not None:
                for line in output.follow(tail):
                    print(line, flush=True)
    except KeyboardInterrupt:
        note("")
        note(_("Job {id} goes on. Look again: ailab logs -f {id}. End it: ailab stop {id}").format(id=job))
        return 0


class _Patience:
    """Says what a job waits for, once it has waited a little, and again when that is something else."""

    def __init__(self) -> None:
        self._until = time.monotonic() + PATIENCE_SECONDS
        self._told = ""

    def look(self, seen: dict[str, Any]) -> None:
        why = seen["waits_for"]
        if why in ("", self._told) or time.monotonic() < self._until:
            return
        from ailab.cli.job_words import word

        self._told = why
        note(_("Job {id} waits {why}. Who holds what: ailab top").format(id=seen["id"], why=word(why)))


def _begun(lab: Lab, job: int, attempt: int, patience: _Patience) -> dict[str, Any] | None:
    """The job once an attempt after `attempt` has begun, or it has ended."""
    seen: dict[str, Any] = lab.client.get(f"/api/jobs/{job}")
    patience.look(seen)
    begun = seen["attempt"] > attempt and seen["state"] not in ("queued", "starting")
    return seen if begun or seen["state"] in _ENDED else None


def _tell_end(seen: dict[str, Any]) -> int:
    if seen["state"] == "done":
        note(_("Job {id} is done.").format(id=seen["id"]))
        return 0
    from ailab.cli.job_words import word

    note(_("Job {id}: {state}. {note}").format(id=seen["id"], state=word(seen["state"]), note=seen["note"]).strip())
    return 1
