"""Who sent a request, and what every page's answer says to the browser."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlparse

from fastapi import Depends, Request

from ailab.errors import Forbidden
from ailab.i18n import _
from ailab.portal.login import PREFIX, NotLoggedIn, Session, same_text

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
PASSWORD_PAGE = f"{PREFIX}password"


class OwnPasswordFirst(Forbidden):
    """The person came in with a one-time password and has not chosen one of their own."""

    kind = "own-password-first"


async def current_user(request: Request) -> Session:
    """Who sent the request. Nothing gets past this without a login and a password of one's own, nor another site's
    form."""
    session: Session | None = await request.app.state.logins.session(request)
    if session is None:
        raise NotLoggedIn(_("You are not logged in."), remedy=_("Open the lab's page, or send a token of the hub."))
    if request.method not in ("GET", "HEAD") and not _same_origin(request):
        raise Forbidden(_("This request came from another site."))
    if session.must_choose and request.url.path != PASSWORD_PAGE:
        raise OwnPasswordFirst(
            _("Choose a password of your own first."), remedy=_("Open the lab's page in a browser: it asks for one.")
        )
    return session


User = Annotated[Session, Depends(current_user)]


def refuse_foreign_form(session: Session, form_token: str) -> None:
    """Raises `Forbidden` for a form that is not one of this session's pages."""
    if not session.form_token or not same_text(form_token, session.form_token):
        raise Forbidden(_("This form is too old."), remedy=_("Open the page again."))


def _same_origin(request: Request) -> bool:
    """Whether the browser says that the request comes from our own pages; programs send tokens and no origin."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    try:
        return origin is None or urlparse(origin).netloc == request.headers.get("host")
    except ValueError:
        return False
