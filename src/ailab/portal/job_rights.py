"""Whose job it is: everybody sees all jobs, and what they say and how they end is their owner's."""

from __future__ import annotations

from typing import Any

from ailab.errors import Forbidden
from ailab.i18n import _
from ailab.portal.backstage import Backstage


def is_theirs(backstage: Backstage, user: str, job: dict[str, Any]) -> bool:
    """Whether a job is `user`'s, or they look after all."""
    return bool(job["owner"] == user or backstage.is_admin(user))


def refuse_others(backstage: Backstage, user: str, job: int) -> None:
    """Raises `Forbidden` for somebody else's job, `NotFound` where there is none."""
    if not is_theirs(backstage, user, backstage.job(job)):
        raise Forbidden(_("This job is not yours."), remedy=_("Ask its owner, or an administrator."))
