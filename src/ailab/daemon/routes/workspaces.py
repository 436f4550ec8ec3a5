"""Workspaces: what the hub's Spawner asks for."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from ailab.containers import workspace_of
from ailab.daemon import workspace_leases
from ailab.daemon.parts import Parts
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.runtimes.base import Seen, TaskSpec, TaskState
from ailab.runtimes.reasons import note

router = APIRouter(prefix="/workspaces", tags=["workspaces"])


class NewWorkspace(BaseModel):
    """A person's Jupyter server to run and keep running."""

    user: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    variables: dict[str, str]


@router.post("")
def want_workspace(request: Request, wanted: NewWorkspace) -> dict[str, Any]:
    parts: Parts = request.app.state.parts
    spec = workspace_of(parts.lab, wanted.user, wanted.variables)
    spec = workspace_leases.reserve(parts, spec, wanted.user)
    seen = parts.supervisor.want(spec, owner=wanted.user, actor=wanted.user)
    refuse_ended(spec, seen)
    return parts.supervisor.task(spec.id).to_json()


def refuse_ended(spec: TaskSpec, seen: Seen) -> None:
    """Raises `AilabError` for a workspace that has ended as soon as it was started."""
    if seen.state == TaskState.exited:
        raise AilabError(
            note(spec, seen) or _("{task} ended at once.").format(task=spec.name),
            remedy=_("Its log: .ailab/tasks/{task}/log").format(task=spec.id),
        )
