"""The portal's application: its pages, the login behind them, and the tools that it lets through."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Form, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles

from ailab import __version__
from ailab.errors import AilabError, Forbidden
from ailab.i18n import LANGUAGES, _
from ailab.portal.backstage import Backstage
from ailab.portal.forward import Forwarder
from ailab.portal.job_api import add_job_api
from ailab.portal.job_pages import JobPages
from ailab.portal.job_routes import add_job_pages, add_notebook_jobs
from ailab.portal.lease_pages import LeasePages, add_lease_pages
from ailab.portal.login import COOKIE, PREFIX, Logins, NotLoggedIn
from ailab.portal.pages import Pages
from ailab.portal.session import HEADERS, User

_STATE_COOKIE = "ailab-login"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


def create_portal(backstage: Backstage) -> FastAPI:
    """The application that the daemon serves behind the hub's proxy, under `PREFIX`."""
    app = FastAPI(
        title="ailab", version=__version__, docs_url=None, redoc_url=None, openapi_url=f"{PREFIX}openapi.json"
    )
    logins, pages, forwarder = Logins(backstage), Pages(backstage), Forwarder(backstage.forwarded)

    app.state.logins = logins

    @app.get(f"{PREFIX}health")
    async def health() -> Response:
        """For monitors, which have no login: whether the daemon's loops are well, not what fails."""
        well = await asyncio.to_thread(backstage.is_well)
        return JSONResponse({"ok": well}, 200 if well else 503)

    @app.get(f"{PREFIX}api/status")
    async def status(user: User) -> dict[str, Any]:
        return await asyncio.to_thread(backstage.status)

    @app.get(f"{PREFIX}api/events")
    async def events(user: User, limit: int = 50) -> list[dict[str, Any]]:
        return await asyncio.to_thread(backstage.events, min(max(limit, 1), 200))

    @app.get(f"{PREFIX}api/workspace")
    async def workspace(user: User) -> dict[str, str]:
        return {"note": await asyncio.to_thread(backstage.workspace_note, user.user)}

    @app.get(PREFIX)
    async def home(request: Request, user: User) -> Response:
        if await asyncio.to_thread(backstage.must_change_password, user.user):
            return RedirectResponse(f"{PREFIX}password", 303)
        return HTMLResponse(await asyncio.to_thread(pages.home, request, user), headers=HEADERS)

    @app.get(f"{PREFIX}live")
    async def live(request: Request, user: User) -> Response:
        return HTMLResponse(await asyncio.to_thread(pages.live, request), headers=HEADERS)

    @app.get(f"{PREFIX}password")
    async def password_page(request: Request, user: User) -> Response:
        return HTMLResponse(await asyncio.to_thread(pages.password, request, user, ""), headers=HEADERS)

    @app.post(f"{PREFIX}password")
    async def change_password(
        request: Request,
        user: User,
        form_token: Annotated[str, Form()],
        new: Annotated[str, Form(max_length=1024)],
        again: Annotated[str, Form(max_length=1024)],
        current: Annotated[str, Form(max_length=1024)] = "",
    ) -> Response:
        if not user.form_token or not secrets.compare_digest(form_token, user.form_token):
            raise Forbidden(_("This form is too old."), remedy=_("Open the page again."))
        try:
            if new != again:
                raise AilabError(pages.say(request, "The two new passwords differ."))
            address = request.headers.get("x-forwarded-for", "").split(",")[0]
            await asyncio.to_thread(backstage.change_password, user.user, new, current or None, address)
        except AilabError as error:
            page = await asyncio.to_thread(pages.password, request, user, error.message)
            return HTMLResponse(page, 422, headers=HEADERS)
        return RedirectResponse(PREFIX, 303)

    @app.get(f"{PREFIX}language/{{code}}")
    async def choose_language(code: str) -> Response:
        answer = RedirectResponse(PREFIX, 303)
        if code in LANGUAGES:
            answer.set_cookie("ailab-language", code, max_age=365 * 86400, path=PREFIX, samesite="lax", httponly=True)
        return answer

    @app.get(f"{PREFIX}oauth_callback")
    async def oauth_callback(request: Request, code: str = "", state: str = "") -> Response:
        name, target = await logins.finish(code, state, request.cookies.get(_STATE_COOKIE, ""))
        answer = RedirectResponse(target, 303)
        secure = request.headers.get("x-forwarded-proto", "").startswith("https")
        answer.set_cookie(COOKIE, name, path=PREFIX, httponly=True, samesite="lax", secure=secure)
        answer.delete_cookie(_STATE_COOKIE, path=PREFIX)
        return answer

    @app.get(f"{PREFIX}logout")
    async def logout(request: Request) -> Response:
        logins.end(request)
        answer = RedirectResponse("/hub/logout", 303)
        answer.delete_cookie(COOKIE, path=PREFIX)
        return answer

    add_job_pages(app, JobPages(backstage, pages))
    add_notebook_jobs(app, backstage)
    add_job_api(app, backstage)
    add_lease_pages(app, LeasePages(backstage, pages))

    @app.api_route(f"{PREFIX}{{tool}}/{{path:path}}", methods=_METHODS, include_in_schema=False)
    async def tool(tool: str, request: Request, user: User) -> Response:
        if tool not in backstage.forwarded:
            raise AilabError(_("There is no such page."), remedy=PREFIX)
        await asyncio.to_thread(backstage.prepare, tool)
        return await forwarder.forward(tool, request)

    app.mount(f"{PREFIX}static", StaticFiles(directory=Path(__file__).with_name("static")))
    app.router.routes.insert(0, app.router.routes.pop())

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, AilabError)
        wants_page = "text/html" in request.headers.get("accept", "")
        if isinstance(error, NotLoggedIn) and wants_page and not request.url.path.endswith("oauth_callback"):
            address, browser = logins.begin(_inside(request))
            answer = RedirectResponse(address, 303)
            answer.set_cookie(_STATE_COOKIE, browser, path=PREFIX, httponly=True, samesite="lax", max_age=600)
            return answer
        if wants_page:
            return HTMLResponse(pages.problem(request, error), error.http_status, headers=HEADERS)
        return JSONResponse(error.body(), error.http_status)

    app.add_exception_handler(AilabError, refuse)
    return app


def _inside(request: Request) -> str:
    """The page that was asked for, as a path of ours: nobody is sent elsewhere after a login."""
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{request.url.path}{query}" if request.url.path.startswith(PREFIX) else PREFIX
