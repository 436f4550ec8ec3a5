"""Passes requests of logged-in people on to tools that have no login of their own, behind unix sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from ailab.errors import AilabError
from ailab.i18n import _
from ailab.portal.answer_headers import tool_policy

# Connection-wise headers (RFC 9110, 7.6.1), and what must not pass the door in either direction.
_KEPT_BACK = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"}
# Who asks, and from which page, the portal has looked at.
_KEPT_BACK |= {"origin", "proxy-authenticate", "proxy-authorization", "authorization", "cookie", "set-cookie"}
# One of them says that a request has a body (RFC 9112, 6).
_BODY = {"content-length", "transfer-encoding"}


class Unreachable(AilabError):
    http_status = 502
    kind = "unreachable"


class Forwarder:
    """One client per tool; the tool gets the path as the browser sent it."""

    def __init__(self, sockets: dict[str, Path]) -> None:
        self._clients = {
            name: httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://tool", timeout=httpx.Timeout(60.0)
            )
            for name, path in sockets.items()
        }

    async def forward(self, name: str, request: Request) -> Response:
        """The tool's answer, streamed. Raises `Unreachable` when it does not answer."""
        client = self._clients[name]
        headers = [(key, value) for key, value in request.headers.items() if key.lower() not in _KEPT_BACK]
        url = httpx.URL(path=request.url.path, query=request.url.query.encode())
        try:
            # As it comes: what is uploaded may be larger than what we have of memory.
            content = request.stream() if _BODY.intersection(request.headers) else None
            onward = client.build_request(request.method, url, headers=headers, content=content)
            answer = await client.send(onward, stream=True)
        except httpx.HTTPError as error:
            raise Unreachable(
                _("{tool} does not answer.").format(tool=name),
                remedy=_("Wait a moment and reload; ailab status shows it."),
            ) from error
        kept = {key: value for key, value in answer.headers.items() if key.lower() not in _KEPT_BACK}
        policy = tool_policy(request.url.path, kept)
        return StreamingResponse(_body(answer), answer.status_code, headers=kept | policy)


async def _body(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()
