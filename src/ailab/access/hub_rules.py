"""What holds for every page and call of the hub: cookies that stay on this site, a password of one's own first."""

from __future__ import annotations

import re
from typing import Any

from jupyterhub.apihandlers import APIHandler
from jupyterhub.handlers import BaseHandler
from jupyterhub.user import User
from oauthlib.oauth2 import OAuth2Error
from tornado import web

from ailab.access.cookies import keep_cookies_here
from ailab.access.services import PORTAL_PREFIX
from ailab.i18n import _

PASSWORD_PAGE = f"{PORTAL_PREFIX}password"
PORTAL_CLIENT = "service-ailab"
# What leads to that page and away from it.
_OPEN = re.compile(r"/hub/(login|login-link|logout|health|logo|static/.*|error/\d+)")


def install() -> None:
    """Have all of the hub's handlers follow the rules."""
    keep_cookies_here(BaseHandler)
    plain_prepare, plain_failure = BaseHandler.prepare, BaseHandler._handle_request_exception

    def failure(handler: BaseHandler, error: BaseException) -> None:
        # JupyterHub lets through what its OAuth library says of a malformed request, and answers 500.
        if isinstance(error, OAuth2Error):
            error = web.HTTPError(400, str(error.description))
        plain_failure(handler, error)

    async def prepare(handler: BaseHandler) -> None:
        await plain_prepare(handler)
        user = handler.current_user
        # No token can be had without a password of one's own, but by a workspace of a person who has none yet.
        by_token = getattr(handler, "_token_authenticated", False)
        if handler._finished or by_token or not isinstance(user, User) or _leads_to_password(handler):
            return
        if await handler.authenticator.must_choose(user.name):
            if isinstance(handler, APIHandler):
                raise web.HTTPError(403, _("Choose a password of your own first."))
            handler.redirect(PASSWORD_PAGE)

    BaseHandler.prepare, BaseHandler._handle_request_exception = prepare, failure


def _leads_to_password(handler: Any) -> bool:
    """Whether a person who has a one-time password needs this: the portal's own login, above all."""
    path = handler.request.path
    if path == "/hub/api/oauth2/authorize":
        return bool(handler.get_argument("client_id", "") == PORTAL_CLIENT)
    return _OPEN.fullmatch(path) is not None
