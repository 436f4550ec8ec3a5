"""Errors as answers of the portal and the daemon's API: one JSON shape, or a page for browsers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from ailab.errors import AilabError, NotFound, UsageError
from ailab.i18n import _
from ailab.portal.session import HEADERS
from ailab.validation import complaint

Page = Callable[[Request, AilabError], str]
Answer = Callable[..., Awaitable[Response]]
_NOTHING: dict[str, str] = {}
_KNOWN_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class WrongMethod(UsageError):
    """The address exists, and not with this method."""

    http_status = 405
    kind = "wrong-method"


def answer_errors(app: FastAPI, page: Page | None = None) -> Answer:
    """Answer every error of `app` as `AilabError.body()`, or by `page` where the request prefers HTML. Returns what
    does it, for handlers of more special errors."""

    async def answer(request: Request, error: AilabError, more: dict[str, str] = _NOTHING) -> Response:
        status = error.http_status
        if page is not None and wants_page(request):
            return HTMLResponse(await asyncio.to_thread(page, request, error), status, headers=HEADERS | more)
        return JSONResponse(_encodable(error.body()), status, headers=more)

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, AilabError)
        return await answer(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return await answer(request, UsageError(complaint(error.errors()[0])))

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == WrongMethod.http_status:
            allowed = ", ".join(_methods(app, request) or ["GET", "HEAD"])
            sentence = _("This address does not take {method}.").format(method=request.method)
            return await answer(request, WrongMethod(sentence), {"Allow": allowed})
        return await answer(request, _as_ours(error), dict(error.headers or {}))

    async def failed(request: Request, error: Exception) -> Response:
        # Starlette raises it again for the log.
        return await answer(request, AilabError(_("This is a bug in ailab."), remedy=_("Its log: .ailab/daemon.log")))

    app.add_exception_handler(AilabError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(Exception, failed)
    return answer


def wants_page(request: Request) -> bool:
    """Whether a browser asks, to show the answer to a person."""
    return "text/html" in request.headers.get("accept", "")


def _as_ours(error: HTTPException) -> AilabError:
    """An error of Starlette or FastAPI as one of ours, with its status."""
    if error.status_code == NotFound.http_status:
        return NotFound(_("There is no such page."))
    ours = UsageError(_("This request cannot be read.") if error.status_code == 400 else str(error.detail))
    ours.http_status = error.status_code
    return ours


def _methods(app: FastAPI, request: Request) -> list[str]:
    """The methods with which the path of `request` leads somewhere. Routes that leave the method to what is mounted
    there take any word for one, and do not count."""

    def taken(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] == Match.FULL for route in routes)

    anything = {**request.scope, "method": "-"}
    routes = [route for route in app.routes if route.matches(anything)[0] != Match.FULL]
    return [method for method in _KNOWN_METHODS if taken(method)]


def _encodable(body: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """`body` without the halves of surrogate pairs, which a request may name and no UTF-8 has."""
    return {
        kind: {key: text.encode("utf-8", "replace").decode() for key, text in parts.items()}
        for kind, parts in body.items()
    }
