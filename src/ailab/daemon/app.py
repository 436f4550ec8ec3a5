"""The API as an application: the routes, and errors in the one shape."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from ailab import __version__
from ailab.daemon.disk_answers import name_full_disks
from ailab.daemon.parts import Parts
from ailab.daemon.routes import jobs, lab, people, tasks, workspaces
from ailab.errors import AilabError, UsageError


def local_api(parts: Parts) -> FastAPI:
    """The API on the daemon's own socket, which only the lab's account can open: no further login."""
    app = FastAPI(title="ailab", version=__version__, docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
    app.state.parts = parts
    for noun in (lab, tasks, workspaces, people, jobs):
        app.include_router(noun.router, prefix="/api")
    # The address at which a monitor looks first.
    app.get("/health", tags=["lab"])(lab.health)
    answer_errors(app)
    name_full_disks(app, parts.lab)
    return app


def answer_errors(app: FastAPI) -> None:
    """Answer our errors, and FastAPI's own, in the one JSON shape."""

    def ours(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, AilabError)
        return JSONResponse(error.body(), error.http_status)

    def invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return JSONResponse(UsageError(f"{place}: {first['msg']}").body(), UsageError.http_status)

    app.add_exception_handler(AilabError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
