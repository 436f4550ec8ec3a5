"""The portal's pages of jobs: what waits, runs and has ended, each with its curves and its output, live."""

from __future__ import annotations

import math
from typing import Any

from fastapi import Request

from ailab.portal.backstage import Backstage
from ailab.portal.curves import svg_curve
from ailab.portal.job_rights import is_theirs, refuse_others
from ailab.portal.login import Session
from ailab.portal.pages import Pages

JOBS_SHOWN = 50
LINES_SHOWN = 200
CURVE_SIZE = (420, 160)
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
        curves = {
            name: svg_curve([(where, math.nan if value is None else value) for where, value in series], *CURVE_SIZE)
            for name, series in seen["curves"].items()
        }
        return {"job": seen, "curves": curves, "output": output, "may_stop": mine and seen["state"] not in _ENDED}

    def stop(self, session: Session, job: int) -> None:
        """Raises `Forbidden` for somebody else's job."""
        refuse_others(self._backstage, session.user, job)
        self._backstage.stop_job(job, session.user)
