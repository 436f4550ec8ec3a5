"""The hub's pages and calls that are ours: login links, logging out by a button, ending a person's other logins."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlparse

from jupyterhub import orm
from jupyterhub.apihandlers import APIHandler
from jupyterhub.apihandlers.base import API404
from jupyterhub.handlers import BaseHandler
from jupyterhub.handlers.login import LogoutHandler
from jupyterhub.scopes import needs_scope
from tornado import web

from ailab.access.cookies import LOGIN_DAYS
from ailab.access.services import PORTAL_PREFIX


class LoginLinkHandler(BaseHandler):
    """Logs in whoever brings a fresh one-time code, and sends them on within this lab."""

    async def get(self) -> None:
        self.set_header("Referrer-Policy", "no-referrer")
        await self.login_user({"code": self.get_argument("code", "")})
        # JupyterHub's own next address would bring the code with it.
        self.redirect(_inside(self.get_argument("next", "")))


def _inside(target: str) -> str:
    """An address of this lab: `target`, or its first page."""
    try:
        is_here = target.startswith("/") and not target.startswith(("//", "/\\")) and not urlparse(target).netloc
    except ValueError:
        return PORTAL_PREFIX
    return target if is_here and target.isprintable() else PORTAL_PREFIX


class ButtonLogoutHandler(LogoutHandler):
    """A page with a button. JupyterHub's own logs out whoever follows a link to it, or loads it as a picture."""

    async def get(self) -> None:
        self.finish(await self.render_template("logout.html", xsrf=self.xsrf_token.decode("ascii")))

    async def post(self) -> None:
        """The portal looks at its own session then, which has lost its token here."""
        await self.default_handle_logout()
        self.redirect(f"{PORTAL_PREFIX}logged-out")


class SessionsHandler(APIHandler):
    """A person's logins. Asked by the daemon when they have chosen a new password."""

    @needs_scope("admin:users")  # type: ignore[untyped-decorator]  # JupyterHub has no type hints
    def delete(self, name: str) -> None:
        """End all logins and tokens but those in `keep`, and those that pages in the browser session `browser` got.

        Answers with the cookie that keeps this browser logged in: all others hold one that is worth nothing now.
        """
        user = self.find_user(name)
        body = self.get_json_body()
        if user is None or not isinstance(body, dict):
            raise web.HTTPError(404)
        found = [orm.APIToken.find(self.db, token) for token in body.get("keep", [])]
        kept = {token.id for token in found if token is not None}
        browser = body.get("browser") or None
        for token in list(user.orm_user.api_tokens):
            if token.id not in kept and (browser is None or token.session_id != browser):
                self.db.delete(token)
        for code in self.db.query(orm.OAuthCode).filter_by(user_id=user.id):
            self.db.delete(code)
        user.orm_user.cookie_id = orm.new_token()
        self.db.commit()
        self.authenticator.has_chosen(name)
        cookie = self.create_signed_value(self.hub.cookie_name, user.orm_user.cookie_id).decode("ascii")
        shown = {"name": self.hub.cookie_name, "value": cookie, "path": self.hub.base_url}
        self.write(json.dumps(shown | {"max_age": LOGIN_DAYS * 86400}))


HANDLERS: list[tuple[str, Any]] = [
    ("/login-link", LoginLinkHandler),
    ("/logout", ButtonLogoutHandler),
    (r"/api/users/([^/]+)/logins", SessionsHandler),
    # Deprecated since JupyterHub 2, and broken (a POST answers 500).
    (r"/api/authorizations/.*", API404),
]
