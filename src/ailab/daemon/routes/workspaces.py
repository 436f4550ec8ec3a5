"""Workspaces: what the hub's Spawner asks for."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from ailab.access.services import workspace_spec
from ailab.daemon.parts import Parts

router = APIRouter(prefix="/workspaces", tags=["workspaces"])


class NewWorkspace(BaseModel):
    """A person's Jupyter server to run and keep running, on a port of loopback that the hub has chosen."""

    user: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    port: int = Field(ge=1, le=65535)
    variables: dict[str, str]


@router.post("")
def want_workspace(request: Request, wanted: NewWorkspace) -> dict[str, Any]:
    parts: Parts = request.app.state.parts
    lab = parts.lab
    spec = workspace_spec(lab.settings, lab.paths, wanted.user, wanted.port, wanted.variables)
    parts.supervisor.want(spec, owner=wanted.user, actor=wanted.user)
    return parts.supervisor.task(spec.id).to_json()
