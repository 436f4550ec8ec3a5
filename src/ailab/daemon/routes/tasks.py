"""Tasks: what is wanted and how it is."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from ailab.daemon.parts import Parts

router = APIRouter(prefix="/tasks", tags=["tasks"])


def _parts(request: Request) -> Parts:
    return request.app.state.parts  # type: ignore[no-any-return]  # Starlette's state is untyped


@router.get("")
def list_tasks(request: Request) -> list[dict[str, Any]]:
    return [task.to_json() for task in _parts(request).supervisor.tasks()]


@router.get("/{task_id}")
def get_task(request: Request, task_id: str) -> dict[str, Any]:
    return _parts(request).supervisor.task(task_id).to_json()


@router.delete("/{task_id}")
def unwant_task(request: Request, task_id: str) -> dict[str, Any]:
    return _parts(request).supervisor.unwant(task_id, actor="hub").to_json()
