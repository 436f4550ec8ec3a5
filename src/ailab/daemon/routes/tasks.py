"""Tasks: what the hub's Spawner asks for, and what anyone may look at."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from ailab.daemon.parts import Parts
from ailab.runtimes.base import TaskKind, TaskSpec

router = APIRouter(prefix="/tasks", tags=["tasks"])


class NewTask(BaseModel):
    """A task to run and keep running. `environment` is the command's complete environment."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    kind: TaskKind
    name: str
    owner: str
    command: list[str] = Field(min_length=1)
    environment: dict[str, str]
    cwd: str
    ports: list[int | str] = []
    grace: float = Field(10.0, ge=0, le=300)


def _parts(request: Request) -> Parts:
    return request.app.state.parts  # type: ignore[no-any-return]  # Starlette's state is untyped


@router.get("")
def list_tasks(request: Request) -> list[dict[str, Any]]:
    return [task.to_json() for task in _parts(request).supervisor.tasks()]


@router.post("")
def want_task(request: Request, task: NewTask) -> dict[str, Any]:
    parts = _parts(request)
    limits = parts.lab.settings.resources
    spec = TaskSpec(
        id=task.id,
        name=task.name,
        kind=task.kind,
        command=tuple(task.command),
        environment=task.environment,
        cwd=task.cwd,
        ports=tuple(task.ports),
        grace=task.grace,
        cpus=limits.cpus,
        memory_bytes=limits.memory,
    )
    parts.supervisor.want(spec, owner=task.owner, actor=task.owner)
    return parts.supervisor.task(task.id).to_json()


@router.get("/{task_id}")
def get_task(request: Request, task_id: str) -> dict[str, Any]:
    return _parts(request).supervisor.task(task_id).to_json()


@router.delete("/{task_id}")
def unwant_task(request: Request, task_id: str) -> dict[str, Any]:
    return _parts(request).supervisor.unwant(task_id, actor="hub").to_json()
