"""JupyterHub's door: it asks the daemon, which knows the users, counts failures and writes the events."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from jupyterhub.auth import Authenticator
from jupyterhub.handlers import BaseHandler
from tornado import web
from traitlets import Unicode

from ailab.client import Client
from ailab.errors import AilabError, WrongPassword


class LabAuthenticator(Authenticator):
    """Passwords and login links, checked by the daemon; what it says of a refusal stands on the login page."""

    daemon_socket = Unicode(config=True, help="The daemon's unix socket.")

    async def authenticate(self, handler: BaseHandler, data: dict[str, Any]) -> dict[str, Any] | None:
        login = {"address": handler.request.remote_ip or ""}
        if "code" in data:
            login["code"] = data["code"]
        else:
            login |= {"user": data["username"], "password": data["password"]}
        client = Client(Path(self.daemon_socket))
        try:
            user = await asyncio.to_thread(client.post, "/api/logins", login)
        except WrongPassword:
            return None
        except AilabError as error:
            raise web.HTTPError(error.http_status, f"{error.message} {error.remedy}") from error
        return {"name": user["name"], "admin": user["admin"]}

    def normalize_username(self, username: str) -> str:
        return username

    def get_handlers(self, app: Any) -> list[tuple[str, type[BaseHandler]]]:
        return [*super().get_handlers(app), ("/login-link", LoginLinkHandler)]


class LoginLinkHandler(BaseHandler):
    """Logs in whoever brings a fresh one-time code, and sends them on within this lab."""

    async def get(self) -> None:
        user = await self.login_user({"code": self.get_argument("code", "")})
        target = self.get_argument("next", "")
        parts = urlparse(target)
        inside = target.startswith("/") and not target.startswith(("//", "/\\")) and not parts.netloc
        self.redirect(target if inside else self.get_next_url(user))
