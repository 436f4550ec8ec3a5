"""The language of answers: what is said while a request is answered is said in its reader's language."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ailab.i18n import LANGUAGES, answer_in


class InLanguage:
    """Has `choose` say the language of each request; empty: the process's own."""

    def __init__(self, app: ASGIApp, choose: Callable[[Request], str]) -> None:
        self._app = app
        self._choose = choose

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            answer_in(self._choose(Request(scope)))
        await self._app(scope, receive, send)


def accepted_language(request: Request) -> str:
    """The first language of Accept-Language that we speak, as the lab's own client sends it."""
    words = request.headers.get("accept-language", "").lower().split(",")
    codes = (word.strip()[:2] for word in words)
    return next((code for code in codes if code in LANGUAGES), "")
