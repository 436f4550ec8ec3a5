"""Requests that may be asked for again: what was done for the first answers the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

_KEPT = 256


class Once:
    """Of requests with the same key from the same user the first is done, and its answer is everybody's.

    So a browser that was told of no answer, as when a connection broke on the way, asks again and gets no second job.
    A refusal is not kept. The latest `_KEPT` are, as long as this process lives.
    """

    def __init__(self) -> None:
        self._doing: dict[tuple[str, str], asyncio.Future[Any]] = {}

    async def do(self, user: str, key: str, what: Callable[[], Awaitable[Any]]) -> Any:
        """The answer of `what`, or of the one that was done for this key before. Without a key it is done each time."""
        if not key:
            return await what()
        if (user, key) not in self._doing:
            self._begin((user, key), asyncio.ensure_future(what()))
        # Who asked first may have gone; whoever asks next waits for the same.
        return await asyncio.shield(self._doing[user, key])

    def _begin(self, one: tuple[str, str], doing: asyncio.Future[Any]) -> None:
        self._doing[one] = doing
        while len(self._doing) > _KEPT:
            del self._doing[next(iter(self._doing))]
        doing.add_done_callback(
            lambda done: self._doing.pop(one, None) if done.cancelled() or done.exception() else None
        )
