"""Request bodies at the portal and the daemon's API: read to their end, and no larger than what is read into memory."""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ailab.i18n import _

# What handlers read into memory. What is passed on to a tool is streamed and has no limit.
LARGEST_BODY = 8 * 1024**2
# What is read and thrown away of a body that nobody wants, before the answer.
DRAINED_BYTES = 256 * 1024**2
DRAINED_SECONDS = 30.0


class WholeBody:
    """Reads the rest of a body before the answer begins.

    A server that answers and closes while the proxy still writes breaks the proxy's connection: it then answers 503
    in place of what it was told (node: EPIPE before the response is read).
    """

    def __init__(self, app: ASGIApp, streamed: tuple[str, ...] = ()) -> None:
        self._app = app
        self._streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive, limited=not scope["path"].startswith(self._streamed))

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                await body.drain()
            await send(message)

        await self._app(scope, body.receive, answer)


class _Body:
    def __init__(self, receive: Receive, *, limited: bool) -> None:
        self._receive = receive
        self._limited = limited
        self._read = 0
        self._ended = False

    async def receive(self) -> Message:
        message = await self._next()
        if self._limited and self._read > LARGEST_BODY:
            # FastAPI lets through this kind of error alone while it reads a body.
            raise HTTPException(413, _("The body of a request is at most {most} MiB.").format(most=LARGEST_BODY >> 20))
        return message

    async def _next(self) -> Message:
        message = await self._receive()
        self._read += len(message.get("body", b""))
        self._ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Throw away what is left of the body; a larger or slower one than the limits is given up."""
        try:
            async with asyncio.timeout(DRAINED_SECONDS):
                while not self._ended and self._read < DRAINED_BYTES:
                    await self._next()
        except TimeoutError:
            pass
