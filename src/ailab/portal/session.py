"""Who sent a request, and what every page's answer says to the browser."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlparse

from fastapi import Depends, Request

from ailab.errors import Forbidden
from ailab.i18n import _
from ailab.portal.login import NotLoggedIn, Session

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


async def current_user(request: Request) -> Session:
    """Who sent the request; nobody gets past this without a login, and no other site's form does."""
    session: Session | None = await request.app.state.logins.session(request)
    if session is None:
        raise NotLoggedIn(_("You are not logged in."), remedy=_("Open the lab's page, or send a token of the hub."))
    if request.method not in ("GET", "HEAD") and not _same_origin(request):
        raise Forbidden(_("This request came from another site."))
    return session


User = Annotated[Session, Depends(current_user)]


def _same_origin(request: Request) -> bool:
    """Whether the browser says that the request comes from our own pages; programs send tokens and no origin."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or urlparse(origin).netloc == request.headers.get("host")
