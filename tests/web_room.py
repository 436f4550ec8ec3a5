"""The portal and the daemon's API in this process, on a lab of the test's own with a real store; nothing runs in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from ailab.daemon.app import local_api
from ailab.daemon.backstage import DaemonBackstage
from ailab.daemon.parts import Parts
from ailab.jobs.model import JobRequest
from ailab.lab import Lab
from ailab.portal.app import create_portal
from ailab.portal.login import PREFIX, Session
from ailab.settings_file import default_document

PASSWORD = "correct horse battery"


class WebRoom:
    """`ann` is its administrator, with a password of her own. There is one job, 1, which waits."""

    def __init__(self, folder: Path, *, language: str = "en") -> None:
        root = folder / "lab"
        (root / "notebooks").mkdir(parents=True)
        text = default_document(name="lab", language=language, stack="science", port=8888)
        (root / "lab.toml").write_text(text, encoding="utf-8")
        lab = Lab.open(root)
        lab.make_private_folders()
        self.parts = Parts.of(lab)
        # A hash takes long on purpose.
        self.parts.users.__dict__["_hasher"] = PasswordHasher(time_cost=1, memory_cost=64)
        self.parts.users.add("ann", admin=True, actor="test")
        self.parts.users.change_password("ann", PASSWORD, current=None, address="")
        request = JobRequest(command=("true",), cwd="/", not_before=4e9)
        self.parts.jobs.submit([request], owner="ann", actor="ann")
        self.backstage = DaemonBackstage(self.parts)
        self.portal = create_portal(self.backstage)
        self.api = local_api(self.parts)
        self.session = Session("token", "ann", "form", 0, 0)
        self.portal.state.logins.session = self._session

    async def _session(self, request: Request) -> Session | None:
        return self.session if "ailab-session" in request.cookies else None

    def clients(self) -> dict[str, TestClient]:
        """A browser that is logged in, one that is not, and a program of this machine."""
        mine = _client(self.portal)
        mine.cookies.set("ailab-session", "x")
        return {"portal": mine, "stranger": _client(self.portal), "api": _client(self.api)}

    def kept(self) -> dict[str, list[Any]]:
        """Every row of the store, but the events, which tell of refusals."""
        from sqlalchemy import select

        from ailab.store import metadata

        with self.parts.lab.store.engine.connect() as connection:
            return {
                table.name: [tuple(row) for row in connection.execute(select(table))]
                for table in metadata.sorted_tables
                if table.name != "events"
            }

    def close(self) -> None:
        self.parts.supervisor.close()
        self.parts.worker.close()


def _client(app: FastAPI) -> TestClient:
    return TestClient(app, base_url="http://lab", raise_server_exceptions=False, follow_redirects=False)


def routes_of(app: FastAPI) -> list[tuple[str, set[str]]]:
    """The paths of an application and their methods, but those of the tools, which take all."""
    return [(path, {method.upper() for method in methods}) for path, methods in app.openapi()["paths"].items()]


__all__ = ["PASSWORD", "PREFIX", "WebRoom", "routes_of"]
