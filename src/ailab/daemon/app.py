"""The API as an application: the routes, and errors in the one shape."""

from __future__ import annotations

from fastapi import FastAPI

from ailab import __version__
from ailab.daemon.disk_answers import name_full_disks
from ailab.daemon.parts import Parts
from ailab.daemon.routes import jobs, lab, people, tasks, workspaces
from ailab.portal.error_answers import answer_errors
from ailab.portal.request_body import WholeBody
from ailab.portal.request_language import InLanguage, accepted_language


def local_api(parts: Parts) -> FastAPI:
    """The API on the daemon's own socket, which only the lab's account can open: no further login."""
    app = FastAPI(title="ailab", version=__version__, docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
    app.state.parts = parts
    for noun in (lab, tasks, workspaces, people, jobs):
        app.include_router(noun.router, prefix="/api")
    app.add_middleware(WholeBody)
    app.add_middleware(InLanguage, choose=accepted_language)
    # The address at which a monitor looks first.
    app.get("/health", tags=["lab"])(lab.health)
    answer_errors(app)
    name_full_disks(app, parts.lab)
    return app
