"""JupyterHub's door: it asks the daemon, which knows the users, counts failures and writes the events."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jupyterhub.apihandlers import APIHandler
from jupyterhub.auth import Authenticator
from jupyterhub.handlers import BaseHandler
from tornado import web
from traitlets import Set, Unicode

from ailab.access.hub_handlers import HANDLERS
from ailab.client import Client
from ailab.errors import AilabError, WrongPassword
from ailab.i18n import _

LONGEST_NAME, LONGEST_PASSWORD, LONGEST_CODE = 256, 1024, 256


class LabAuthenticator(Authenticator):
    """Passwords and login links, checked by the daemon; what it says of a refusal stands on the login page."""

    daemon_socket = Unicode(config=True, help="The daemon's unix socket.")
    _chosen: Set = Set(Unicode(), help="Users that are known to have a password of their own.")

    async def authenticate(self, handler: BaseHandler, data: dict[str, Any]) -> dict[str, Any] | None:
        login = {"address": handler.request.remote_ip or "", **_what_was_brought(data)}
        # By a call without a form nobody chooses a password.
        login["one_time"] = not isinstance(handler, APIHandler)
        try:
            user = await asyncio.to_thread(self._daemon.post, "/api/logins", login)
        except WrongPassword:
            return None
        except AilabError as error:
            raise web.HTTPError(error.http_status, f"{error.message} {error.remedy}") from error
        return {"name": user["name"], "admin": user["admin"]}

    @property
    def _daemon(self) -> Client:
        return Client(Path(self.daemon_socket))

    async def must_choose(self, user: str) -> bool:
        """Whether this user has yet to choose a password of their own. Who has done so is not asked about again."""
        if user in self._chosen:
            return False
        try:
            known = await asyncio.to_thread(self._daemon.get, f"/api/users/{quote(user, safe='')}/password")
        except AilabError as error:
            raise web.HTTPError(error.http_status, f"{error.message} {error.remedy}") from error
        if not known["must_change"]:
            self._chosen.add(user)
        return bool(known["must_change"])

    def has_chosen(self, user: str) -> None:
        self._chosen.add(user)

    def normalize_username(self, username: str) -> str:
        return username

    def get_handlers(self, app: Any) -> list[tuple[str, type[BaseHandler]]]:
        return [*super().get_handlers(app), *HANDLERS]


def _what_was_brought(data: Any) -> dict[str, str]:
    """A code, or a name with a password. One that is too long for anybody's is as wrong as another."""
    brought = data if isinstance(data, dict) else {}
    code, name, password = (brought.get(key, "") for key in ("code", "username", "password"))
    if "code" in brought and isinstance(code, str):
        return {"code": code if len(code) <= LONGEST_CODE else "-"}
    if not isinstance(name, str) or not isinstance(password, str) or "username" not in brought:
        raise web.HTTPError(400, _("A user name and a password are expected."))
    return {"user": name[:LONGEST_NAME], "password": password if len(password) <= LONGEST_PASSWORD else ""}
