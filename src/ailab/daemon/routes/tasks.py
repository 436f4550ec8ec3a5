"""Tasks: what is wanted and how it is."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request

from ailab.daemon.parts import Parts
from ailab.errors import NotFound

router = APIRouter(prefix="/tasks", tags=["tasks"])


def _parts(request: Request) -> Parts:
    return request.app.state.parts  # type: ignore[no-any-return]  # Starlette's state is untyped


@router.get("")
def list_tasks(request: Request) -> list[dict[str, Any]]:
    return [task.to_json() for task in _parts(request).supervisor.tasks()]


@router.get("/{task_id}")
def get_task(request: Request, task_id: str) -> dict[str, Any]:
    """With where this machine reaches it, which is `null` for what does not run or has no port."""
    parts = _parts(request)
    task = parts.supervisor.task(task_id)
    port = next((port for port in task.spec.ports if isinstance(port, int)), None)
    address = None
    with suppress(NotFound):
        address = parts.lab.runtime.connect(task_id, port) if port is not None else None
    return task.to_json() | {"address": address}


@router.delete("/{task_id}")
def unwant_task(request: Request, task_id: str) -> dict[str, Any]:
    return _parts(request).supervisor.unwant(task_id, actor="hub").to_json()
