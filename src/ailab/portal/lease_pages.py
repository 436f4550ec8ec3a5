"""The portal's page of leases: who holds what of the machine and uses how much of it, live."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response

from ailab.portal.backstage import Backstage
from ailab.portal.login import PREFIX, Session
from ailab.portal.pages import Pages, size
from ailab.portal.session import HEADERS, User


class LeasePages:
    """Renders it; each call may block."""

    def __init__(self, backstage: Backstage, pages: Pages) -> None:
        self._backstage = backstage
        self._pages = pages

    def leases(self, request: Request, session: Session) -> str:
        return self._pages.render("leases.html", request, user=session.user, **self._seen(request))

    def leases_live(self, request: Request) -> str:
        return self._pages.render("leases_live.html", request, **self._seen(request))

    def _seen(self, request: Request) -> dict[str, Any]:
        held = self._backstage.leases()
        return {
            "held": held,
            "shares": shares(held["usage"]),
            "totals": totals(held, self._pages.say(request, "Memory")),
        }


def totals(held: dict[str, Any], memory: str) -> list[tuple[str, float, float, str]]:
    """Of each kind of thing its name, how much is held, how much there is, and both as a text."""
    capacity, leases = held["capacity"], held["leases"]
    cpus, bytes_held = (sum(lease[key] for lease in leases) for key in ("cpus", "memory_bytes"))
    there = capacity["memory_bytes"]
    found: list[tuple[str, float, float, str]] = [
        ("CPU", cpus, capacity["cpus"], f"{cpus} / {capacity['cpus']}"),
        (memory, bytes_held, there, f"{size(bytes_held) if bytes_held else 0} / {size(there)}"),
    ]
    if capacity["gpus"]:
        gpus = sum(gpu["share"] for lease in leases for gpu in lease["gpus"])
        found.append(("GPU", gpus, len(capacity["gpus"]), f"{gpus:g} / {len(capacity['gpus'])}"))
    return found


def shares(usage: dict[str, float]) -> list[tuple[str, float]]:
    """Each user's part of what all have used, the largest first."""
    total = sum(usage.values()) or 1.0
    return sorted(((user, used / total) for user, used in usage.items()), key=lambda one: -one[1])


def add_lease_pages(app: FastAPI, pages: LeasePages) -> None:
    @app.get(f"{PREFIX}leases")
    async def leases(request: Request, user: User) -> Response:
        return HTMLResponse(await asyncio.to_thread(pages.leases, request, user), headers=HEADERS)

    @app.get(f"{PREFIX}leases/live")
    async def leases_live(request: Request, user: User) -> Response:
        return HTMLResponse(await asyncio.to_thread(pages.leases_live, request), headers=HEADERS)
