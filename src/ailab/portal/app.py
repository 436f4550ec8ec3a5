"""The portal's application: its pages, the login behind them, and the tools that it lets through."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Form, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles

from ailab import __version__
from ailab.errors import AilabError
from ailab.i18n import LANGUAGES
from ailab.portal.answer_headers import SafeHeaders
from ailab.portal.backstage import Backstage
from ailab.portal.client_address import client_address, is_https
from ailab.portal.error_answers import answer_errors, wants_page
from ailab.portal.forward import Forwarder
from ailab.portal.job_api import add_job_api
from ailab.portal.job_pages import JobPages
from ailab.portal.job_routes import add_job_pages, add_notebook_jobs
from ailab.portal.lease_pages import LeasePages, add_lease_pages
from ailab.portal.login import COOKIE, PREFIX, SESSION_SECONDS, Logins, NotLoggedIn
from ailab.portal.pages import Pages
from ailab.portal.request_body import WholeBody
from ailab.portal.request_language import InLanguage
from ailab.portal.session import HEADERS, PASSWORD_PAGE, OwnPasswordFirst, User, refuse_foreign_form

_STATE_COOKIE = "ailab-login"
# JupyterHub's, which names a browser's session: the tokens of JupyterLab's pages in it bear this name.
HUB_SESSION = "jupyterhub-session-id"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


def create_portal(backstage: Backstage) -> FastAPI:
    """The application that the daemon serves behind the hub's proxy, under `PREFIX`."""
    app = FastAPI(
        title="ailab", version=__version__, docs_url=None, redoc_url=None, openapi_url=f"{PREFIX}openapi.json"
    )
    logins, pages, forwarder = Logins(backstage), Pages(backstage), Forwarder(backstage.forwarded)
    app.state.logins = logins
    # The last one sees a request first.
    app.add_middleware(WholeBody, streamed=tuple(f"{PREFIX}{tool}/" for tool in backstage.forwarded))
    app.add_middleware(SafeHeaders)
    app.add_middleware(InLanguage, choose=pages.language)

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
        refuse_foreign_form(user, form_token)
        try:
            if new != again:
                raise AilabError(pages.say(request, "The two new passwords differ."))
            address = client_address(request)
            await asyncio.to_thread(backstage.change_password, user.user, new, current or None, address)
        except AilabError as error:
            page = await asyncio.to_thread(pages.password, request, user, error.message)
            return HTMLResponse(page, 422, headers=HEADERS)
        browser = request.cookies.get(HUB_SESSION, "")
        cookie = await asyncio.to_thread(backstage.end_sessions, user.user, user.token, browser)
        name = logins.end_others(user)
        answer = RedirectResponse(PREFIX, 303)
        set_cookie(request, answer, COOKIE, name, max_age=int(SESSION_SECONDS))
        set_cookie(request, answer, cookie["name"], cookie["value"], path=cookie["path"], max_age=cookie["max_age"])
        return answer

    @app.get(f"{PREFIX}language/{{code}}")
    async def choose_language(request: Request, code: str) -> Response:
        answer = RedirectResponse(PREFIX, 303)
        if code in LANGUAGES:
            set_cookie(request, answer, "ailab-language", code, max_age=365 * 86400)
        return answer

    @app.get(f"{PREFIX}oauth_callback")
    async def oauth_callback(request: Request, code: str = "", state: str = "") -> Response:
        name, target = await logins.finish(code, state, request.cookies.get(_STATE_COOKIE, ""))
        answer = RedirectResponse(target, 303)
        set_cookie(request, answer, COOKIE, name, max_age=int(SESSION_SECONDS))
        answer.delete_cookie(_STATE_COOKIE, path=PREFIX)
        return answer

    @app.get(f"{PREFIX}logout")
    async def logout() -> Response:
        """Nothing ends here: the hub has a page with a button."""
        return RedirectResponse("/hub/logout", 303)

    @app.get(f"{PREFIX}logged-out")
    async def logged_out(request: Request) -> Response:
        """Where the hub sends a browser that it has logged out."""
        await logins.end_if_over(request)
        return RedirectResponse("/hub/login", 303)

    add_job_pages(app, JobPages(backstage, pages))
    add_notebook_jobs(app, backstage)
    add_job_api(app, backstage)
    add_lease_pages(app, LeasePages(backstage, pages))

    for tool in backstage.forwarded:
        _add_tool(app, tool, backstage, forwarder)
    app.mount(f"{PREFIX}static", StaticFiles(directory=Path(__file__).with_name("static")))

    answer = answer_errors(app, pages.problem)

    async def to_login(request: Request, error: Exception) -> Response:
        if not wants_page(request) or request.url.path.endswith("oauth_callback"):
            return await answer(request, error)
        address, browser = logins.begin(_inside(request))
        redirect = RedirectResponse(address, 303)
        set_cookie(request, redirect, _STATE_COOKIE, browser, max_age=600)
        return redirect

    async def to_password(request: Request, error: Exception) -> Response:
        return RedirectResponse(PASSWORD_PAGE, 303) if wants_page(request) else await answer(request, error)

    app.add_exception_handler(NotLoggedIn, to_login)
    app.add_exception_handler(OwnPasswordFirst, to_password)
    return app


def _add_tool(app: FastAPI, tool: str, backstage: Backstage, forwarder: Forwarder) -> None:
    @app.api_route(f"{PREFIX}{tool}/{{path:path}}", methods=_METHODS, include_in_schema=False)
    async def forwarded(request: Request, user: User) -> Response:
        await asyncio.to_thread(backstage.prepare, tool)
        return await forwarder.forward(tool, request)


def set_cookie(
    request: Request, answer: Response, name: str, value: str, *, path: str = PREFIX, max_age: int | None = None
) -> None:
    """Give the browser a cookie that no script reads, no other site's form sends, and no plain connection after
    HTTPS carries."""
    secure = is_https(request)
    answer.set_cookie(name, value, path=path, max_age=max_age, httponly=True, samesite="lax", secure=secure)


def _inside(request: Request) -> str:
    """The page that was asked for, as a path of ours: nobody is sent elsewhere after a login."""
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{request.url.path}{query}" if request.url.path.startswith(PREFIX) else PREFIX
