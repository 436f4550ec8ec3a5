"""The portal's login: OAuth 2 with the hub (authorization code with PKCE), small because the daemon must be small.

Importing jupyterhub's own HubOAuth costs the daemon tens of MB that the idle budget does not have.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import httpx
from fastapi import Request

from ailab.errors import AilabError, NotRunning
from ailab.i18n import _
from ailab.portal.backstage import Backstage

PREFIX = "/services/ailab/"
CLIENT = "service-ailab"
COOKIE = "ailab-session"
# How long the hub's word on a token is believed, so that a revoked one ends soon.
BELIEVED_SECONDS = 20.0
SESSION_SECONDS = 12 * 3600.0
MOST_SESSIONS = 2000
STATE_SECONDS = 600.0


class NotLoggedIn(AilabError):
    http_status = 401
    kind = "not-logged-in"


@dataclass
class Session:
    """A browser that has logged in: the hub's token stays here, the browser holds only a random name for it.
    `must_choose`: its person has yet to choose a password of their own."""

    token: str
    user: str
    form_token: str
    made: float
    checked: float
    must_choose: bool = False


@dataclass(frozen=True)
class _Pending:
    verifier: str
    target: str
    browser: str
    made: float


class Logins:
    """Sessions in memory: a daemon that starts anew asks the hub again, without the person noticing."""

    def __init__(self, backstage: Backstage) -> None:
        self._backstage = backstage
        self._secret = backstage.service_token
        transport = httpx.AsyncHTTPTransport(uds=str(backstage.hub_socket))
        self._hub = httpx.AsyncClient(transport=transport, base_url="http://hub", timeout=10.0)
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._pending: OrderedDict[str, _Pending] = OrderedDict()

    async def session(self, request: Request) -> Session | None:
        """Who sent this request: by our cookie, or by a hub token in the Authorization header."""
        scheme, _space, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() in ("token", "bearer") and token:
            user = await self._user_of(token)
            # The hub gives no token to somebody without a password of their own.
            return Session(token, user, "", 0, 0) if user else None
        name = request.cookies.get(COOKIE, "")
        session = self._sessions.get(name)
        if session is None:
            return None
        now = time.monotonic()
        if now - session.checked > BELIEVED_SECONDS:
            if now - session.made > SESSION_SECONDS or await self._user_of(session.token) != session.user:
                self._sessions.pop(name, None)
                return None
            session.checked = now
        if session.must_choose:
            session.must_choose = await self._must_choose(session.user)
        return session

    async def _must_choose(self, user: str) -> bool:
        return await asyncio.to_thread(self._backstage.must_change_password, user)

    async def _user_of(self, token: str) -> str | None:
        """The user that a token belongs to and that may use this service; None otherwise."""
        if not token.isascii():
            return None
        try:
            answer = await self._hub.get("/hub/api/user", headers={"Authorization": f"token {token}"})
        except httpx.HTTPError:
            return None
        if answer.status_code != httpx.codes.OK:
            return None
        found = answer.json()
        allowed = {"access:services", "access:services!service=ailab"} & set(found.get("scopes", []))
        return found["name"] if allowed and found.get("kind") == "user" else None

    def begin(self, target: str) -> tuple[str, str]:
        """Where to send a browser to log in, and the value of the cookie that ties the answer to it."""
        state, verifier, browser = secrets.token_urlsafe(24), secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        self._pending[state] = _Pending(verifier, target, browser, time.monotonic())
        while len(self._pending) > MOST_SESSIONS:
            self._pending.popitem(last=False)
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "client_id": CLIENT,
            "redirect_uri": f"{PREFIX}oauth_callback",
            "response_type": "code",
            "state": state,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return f"/hub/api/oauth2/authorize?{urlencode(query, quote_via=quote)}", browser

    async def finish(self, code: str, state: str, browser: str) -> tuple[str, str]:
        """The name of the new session and where the person wanted to go. Raises `NotLoggedIn`."""
        pending = self._pending.pop(state, None)
        fresh = pending is not None and time.monotonic() - pending.made < STATE_SECONDS
        if pending is None or not fresh or not same_text(pending.browser, browser):
            raise NotLoggedIn(
                _("This login is too old or not from this browser."), remedy=_("Open the lab's page again.")
            )
        form = {
            "client_id": CLIENT,
            "client_secret": self._secret,
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": f"{PREFIX}oauth_callback",
            "code_verifier": pending.verifier,
        }
        try:
            answer = await self._hub.post("/hub/api/oauth2/token", data=form)
        except httpx.HTTPError as error:
            raise NotRunning(_("The hub does not answer."), remedy=_("See what runs: ailab status")) from error
        token = answer.json().get("access_token") if answer.status_code == httpx.codes.OK else None
        user = await self._user_of(token) if token else None
        if token is None or user is None:
            raise NotLoggedIn(_("The hub did not confirm this login."), remedy=_("Open the lab's page again."))
        now = time.monotonic()
        session = Session(token, user, secrets.token_urlsafe(24), now, now, await self._must_choose(user))
        return self._keep(session), pending.target

    def _keep(self, session: Session) -> str:
        """Note a session under a new name."""
        name = secrets.token_urlsafe(32)
        self._sessions[name] = session
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return name

    def end_others(self, session: Session) -> str:
        """End all sessions of the person but this one, which gets a new name: what its cookie is from now on."""
        mine = [name for name, other in self._sessions.items() if other.user == session.user]
        for name in mine:
            del self._sessions[name]
        return self._keep(session) if session.form_token else ""

    async def end_if_over(self, request: Request) -> None:
        """Forget the session of this browser if the hub has ended it."""
        name = request.cookies.get(COOKIE, "")
        session = self._sessions.get(name)
        if session is not None and await self._user_of(session.token) != session.user:
            self._sessions.pop(name, None)


def same_text(one: str, other: str) -> bool:
    """Whether two texts, of which a browser has sent one, are the same: compared in constant time."""
    return secrets.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))
