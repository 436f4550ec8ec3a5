"""People: logins that the hub asks about, users, login links."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from ailab.access.services import web_host, web_url
from ailab.access.users import User
from ailab.daemon.parts import Parts
from ailab.errors import Forbidden
from ailab.i18n import _
from ailab.resources import ports

router = APIRouter(tags=["people"])


class Login(BaseModel):
    """What a person brings to the door: a name with a password, or the code of a login link."""

    user: str = Field("", max_length=256)
    password: str = Field("", max_length=1024)
    code: str = Field("", max_length=256)
    address: str = Field("", max_length=64)
    one_time: bool = Field(True, description="Whether a one-time password or a code will do.")


class Name(BaseModel):
    name: str = Field(max_length=64)


def _parts(request: Request) -> Parts:
    return request.app.state.parts  # type: ignore[no-any-return]  # Starlette's state is untyped


@router.post("/logins")
def log_in(request: Request, login: Login) -> User:
    users = _parts(request).users
    if login.code:
        if not login.one_time:
            raise Forbidden(_("Log in with a browser."), remedy=_("Get a login link on the machine: ailab open"))
        return users.redeem(login.code, address=login.address)
    return users.log_in(login.user, login.password, address=login.address, one_time=login.one_time)


@router.get("/users")
def list_users(request: Request) -> list[str]:
    return _parts(request).users.names()


@router.get("/users/{name}/password")
def get_password_state(request: Request, name: str) -> dict[str, bool]:
    """`must_change`: they have yet to choose one of their own."""
    return {"must_change": _parts(request).users.must_change(name)}


@router.post("/users/first")
def first_user(request: Request, wanted: Name) -> dict[str, Any]:
    """Make `wanted` the lab's administrator where it has no user yet: `password` is null where it had one."""
    users = _parts(request).users
    names = users.names()
    if names:
        return {"name": names[0], "password": None}
    return {"name": wanted.name, "password": users.add(wanted.name, admin=True, actor="up")}


@router.post("/login-links")
def make_link(request: Request, wanted: Name) -> dict[str, str]:
    """Answers with a link that logs in whoever opens it, once the web port is seen to be the lab's own."""
    parts = _parts(request)
    access = parts.lab.settings.access
    ports.refuse_stranger(web_host(parts.lab.settings), access.port, parts.lab.paths.settings)
    code = parts.users.make_link_code(wanted.name, actor="open")
    return {"url": f"{web_url(parts.lab.settings)}hub/login-link?code={quote(code)}"}
