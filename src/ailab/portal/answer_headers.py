"""What each answer of the portal says to the browser, and what the tools behind it do not say themselves."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Pages of tools: their scripts are built with inline parts and eval (MLflow's with both), and draw from blobs.
TOOL_PAGE = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data: blob:; worker-src 'self' blob:; "
    "frame-src 'self' blob: data:; object-src 'none'; frame-ancestors 'self'; base-uri 'self'; form-action 'self'"
)
# What a person has uploaded and a browser would show in the lab's name: an artifact that is a page or a drawing.
UPLOADED_PAGE = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
_DRAWN = ("text/html", "application/xhtml+xml", "image/svg+xml", "text/xml", "application/xml")
_POLICY = "Content-Security-Policy"


class SafeHeaders:
    """Every answer forbids guessing its type; JSON is kept by no cache."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "same-origin")
                if "json" in headers.get("content-type", ""):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        await self._app(scope, receive, answer)


def tool_policy(path: str, headers: dict[str, str]) -> dict[str, str]:
    """The policy of an answer of a tool, where it is a page and the tool names none."""
    known = {name.lower(): value for name, value in headers.items()}
    kind = known.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _DRAWN or _POLICY.lower() in known:
        return {}
    return {_POLICY: TOOL_PAGE if path.endswith("/") and kind == "text/html" else UPLOADED_PAGE}
