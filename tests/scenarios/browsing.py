"""A browser without a screen: httpx with cookies, which logs in at the hub as a person does; and people of its own."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Any

import httpx
from conftest import CommandLine

from ailab.access.users import Users
from ailab.store import Store

PORTAL = "/services/ailab/"
OWN_PASSWORD = "a password of my own"
PAGE = {"Accept": "text/html"}


@dataclass(frozen=True)
class Person:
    name: str
    password: str


def new_person(lab: CommandLine) -> Person:
    """Somebody with a one-time password, whom no other test knows."""
    name = f"p-{secrets.token_hex(4)}"
    return Person(name, users_of(lab).add(name, admin=False, actor="test"))


def users_of(lab: CommandLine) -> Users:
    return Users(Store(lab.paths.database).open())


def browser(lab: CommandLine, **headers: str) -> httpx.Client:
    host, port = lab.web
    return httpx.Client(base_url=f"http://{host}:{port}", headers=PAGE | headers, timeout=60, follow_redirects=True)


def hidden(page: str, name: str) -> str:
    """The value of a form's hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found, f"no field {name} in {page[:2000]}"
    return found[1]


def log_in(page: httpx.Client, user: str, password: str, **more: Any) -> httpx.Response:
    form = page.get("/hub/login")
    fields = {"username": user, "password": password, "_xsrf": hidden(form.text, "_xsrf")}
    return page.post("/hub/login", data=fields, **more)


def choose_password(page: httpx.Client, new: str, current: str = "", **more: Any) -> httpx.Response:
    form = page.get(f"{PORTAL}password")
    fields = {"form_token": hidden(form.text, "form_token"), "new": new, "again": new, "current": current}
    return page.post(f"{PORTAL}password", data=fields, **more)


def with_own_password(lab: CommandLine) -> Person:
    """Somebody who has chosen a password."""
    person = new_person(lab)
    users_of(lab).change_password(person.name, OWN_PASSWORD, current=None, address="")
    return Person(person.name, OWN_PASSWORD)
