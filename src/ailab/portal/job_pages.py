"""The portal's pages of jobs: what waits, runs and has ended, each with its curves and its output, live."""

from __future__ import annotations

import math
from typing import Any

from fastapi import Request

from ailab.errors import NotFound
from ailab.i18n import _
from ailab.jobs.comparing import Reached, winners
from ailab.portal.backstage import Backstage
from ailab.portal.curves import svg_curve, svg_curves
from ailab.portal.job_rights import is_theirs, refuse_others
from ailab.portal.login import Session
from ailab.portal.pages import Pages

JOBS_SHOWN = 50
LINES_SHOWN = 200
CURVE_SIZE = (420, 160)
COMPARED_SIZE = (460, 220)
_ENDED = ("done", "failed", "stopped")


class JobPages:
    """Renders them; each call may block. Everybody sees all jobs; the output, and the button that stops one, are its
    owner's and the administrators'."""

    def __init__(self, backstage: Backstage, pages: Pages) -> None:
        self._backstage = backstage
        self._pages = pages

    def jobs(self, request: Request, session: Session) -> str:
        return self._pages.render("jobs.html", request, user=session.user, **self._all())

    def jobs_live(self, request: Request) -> str:
        return self._pages.render("jobs_live.html", request, **self._all())

    def _all(self) -> dict[str, Any]:
        return {"found": self._backstage.jobs(JOBS_SHOWN), "held": self._backstage.leases()}

    def job(self, request: Request, session: Session, job: int) -> str:
        shown = self._one(session, job)
        return self._pages.render("job.html", request, user=session.user, form=session.form_token, **shown)

    def job_live(self, request: Request, session: Session, job: int) -> str:
        return self._pages.render("job_live.html", request, **self._one(session, job))

    def _one(self, session: Session, job: int) -> dict[str, Any]:
        seen = self._backstage.job(job)
        mine = is_theirs(self._backstage, session.user, seen)
        output = self._backstage.job_output(job, LINES_SHOWN) if mine else None
        curves = {name: svg_curve(_with_gaps(series), *CURVE_SIZE) for name, series in seen["curves"].items()}
        return {"job": seen, "curves": curves, "output": output, "may_stop": mine and seen["state"] not in _ENDED}

    def compare(self, request: Request, session: Session, jobs: list[int]) -> str:
        found = self._backstage.compared(jobs)
        names = [f"{job['id']} {job['name']}" for job in found["jobs"]]
        curves = {
            name: svg_curves([_with_gaps(series) for series in shown], *COMPARED_SIZE, title=name)
            for name, shown in found["curves"].items()
        }
        marks = {name: _winners(name, reached) for name, reached in found["metrics"].items()}
        return self._pages.render(
            "compare.html", request, user=session.user, found=found, names=names, curves=curves, marks=marks
        )

    def tensorboard(self, jobs: list[int]) -> str:
        """Its address with the runs of `jobs` alone. Raises `NotFound` where none of them has any."""
        link = self._backstage.tensorboard_of(jobs)
        if link is None:
            raise NotFound(
                _("None of these jobs has written anything for TensorBoard."),
                remedy=_("A script does, into the folder AILAB_LOGS: tf.keras.callbacks.TensorBoard(...)"),
            )
        return link

    def stop(self, session: Session, job: int) -> None:
        """Raises `Forbidden` for somebody else's job."""
        refuse_others(self._backstage, session.user, job)
        self._backstage.stop_job(job, session.user)


def _with_gaps(series: list[Any] | None) -> list[tuple[float, float]]:
    return [(where, math.nan if value is None else value) for where, value in series or ()]


def _winners(name: str, reached: list[dict[str, float | None] | None]) -> list[bool]:
    return winners(name, [None if one is None else Reached(math.nan, one["best"]) for one in reached])
