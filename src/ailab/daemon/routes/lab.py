"""The lab as a whole: its status, its events, and stopping it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from ailab import events
from ailab.daemon.parts import Parts
from ailab.daemon.status import is_well

router = APIRouter(tags=["lab"])


def _parts(request: Request) -> Parts:
    return request.app.state.parts  # type: ignore[no-any-return]  # Starlette's state is untyped


@router.get("/status")
def status(request: Request) -> dict[str, Any]:
    return _parts(request).status()


@router.get("/health")
def health(request: Request, response: Response) -> dict[str, Any]:
    """The daemon's loops and what fails now. Status 503 unless all is well."""
    found = _parts(request).health()
    well = is_well(found)
    response.status_code = 200 if well else 503
    return {"state": "ready" if well else "degraded", **found}


@router.get("/events")
def list_events(request: Request, limit: int = 50) -> list[dict[str, Any]]:
    return events.newest(_parts(request).lab.store, min(max(limit, 1), 1000))


@router.post("/down")
def down(request: Request) -> dict[str, Any]:
    """Stop every task (workspaces come back with the next `up`), then the daemon."""
    parts = _parts(request)
    try:
        parts.worker.pause()
        parts.supervisor.stop_all()
        stopped = [task.spec.id for task in parts.supervisor.tasks()]
        with parts.lab.store.engine.begin() as connection:
            events.record(connection, actor="down", kind="lab", subject=parts.lab.settings.lab.name, after="stopped")
    finally:
        # Also where nothing can be written down, as on a full disk.
        parts.leave()
    return {"stopped": stopped}


@router.post("/leave")
def leave(request: Request) -> dict[str, Any]:
    """End the daemon alone; the tasks go on, and the next daemon takes them over."""
    _parts(request).leave()
    return {}
