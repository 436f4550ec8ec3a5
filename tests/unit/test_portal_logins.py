"""The portal's side of logins: addresses, cookies, one-time passwords, new passwords; without a hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from web_room import PASSWORD, PREFIX, WebRoom, routes_of

from ailab import events
from ailab.access import users as module
from ailab.access.users import Users
from ailab.errors import Forbidden
from ailab.portal.answer_headers import TOOL_PAGE, UPLOADED_PAGE, tool_policy
from ailab.portal.login import Session
from ailab.store import Store

FORM = {"form_token": "form", "new": "another one entirely", "again": "another one entirely", "current": PASSWORD}
COOKIE = {"name": "jupyterhub-hub-login", "value": "signed", "path": "/hub/", "max_age": 7}


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebRoom]:
    made = WebRoom(tmp_path)
    monkeypatch.setattr(made.backstage, "end_sessions", lambda *_words: COOKIE)
    yield made
    made.close()


@pytest.fixture
def page(room: WebRoom) -> TestClient:
    return room.clients()["portal"]


@pytest.mark.parametrize(
    ("told", "recorded"),
    [
        ({"X-Forwarded-For": "203.0.113.7, 10.0.0.9"}, "10.0.0.9"),
        ({"X-Forwarded-For": "10.0.0.9", "X-Real-Ip": "203.0.113.7", "Forwarded": "for=203.0.113.7"}, "10.0.0.9"),
        ({"X-Forwarded-For": "203.0.113.7, <script>"}, ""),
        ({}, ""),
    ],
)
def test_the_address_of_the_password_form_is_the_proxys_word(
    room: WebRoom, page: TestClient, told: dict[str, str], recorded: str
) -> None:
    answer = page.post(f"{PREFIX}password", data=FORM | {"current": "wrong"}, headers=told)
    assert answer.status_code == 422
    newest = events.newest(room.parts.lab.store, 1)[0]
    assert (newest["kind"], newest["after"], newest["detail"]["address"]) == ("login", "refused", recorded)


@pytest.mark.parametrize(("told", "secure"), [("https", True), ("http", False), ("https, http", False), ("", False)])
def test_cookies_are_secure_where_the_browser_came_by_https(page: TestClient, told: str, secure: bool) -> None:
    answers = [
        page.post(f"{PREFIX}password", data=FORM, headers={"X-Forwarded-Proto": told}),
        page.get(f"{PREFIX}language/zh", headers={"X-Forwarded-Proto": told}),
        page.get(PREFIX, headers={"X-Forwarded-Proto": told, "Accept": "text/html", "Cookie": "ailab-session="}),
    ]
    cookies = [value for answer in answers for value in answer.headers.get_list("set-cookie")]
    assert len(cookies) >= 3
    assert all("SameSite=lax" in value and "HttpOnly" in value and "Max-Age=" in value for value in cookies)
    assert all(("Secure" in value) == secure for value in cookies)


def test_without_a_password_of_ones_own_every_page_is_the_form(room: WebRoom, page: TestClient) -> None:
    room.session = Session("token", "ann", "form", 0, 0, True)
    led, refused = 0, 0
    for path, methods in routes_of(room.portal):
        address = path.replace("{job}", "1").replace("{code}", "en")
        if "GET" not in methods or address.endswith(("/password", "/health", "/language/en", "/oauth_callback")):
            continue
        if address.endswith(("/logout", "/logged-out", "/openapi.json")):
            continue
        answer = page.get(address, params={"job": 1}, headers={"Accept": "text/html"})
        assert (answer.status_code, answer.headers.get("location")) == (303, f"{PREFIX}password"), path
        led += 1
        answer = page.get(address, params={"job": 1})
        assert answer.status_code == 403 and answer.json()["error"]["kind"] == "own-password-first", path
        refused += 1
    assert led > 10 and refused > 10
    for tool in ("tensorboard", "mlflow"):
        assert page.get(f"{PREFIX}{tool}/").status_code == 403
    assert page.get(f"{PREFIX}password", headers={"Accept": "text/html"}).status_code == 200


def test_a_new_password_ends_other_sessions_and_renames_this_one(
    room: WebRoom, page: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[tuple[Any, ...]] = []
    monkeypatch.setattr(room.backstage, "end_sessions", lambda *words: ended.append(words) or COOKIE)
    logins = room.portal.state.logins
    other, stranger = Session("t", "ann", "f", 0, 0), Session("t", "bob", "f", 0, 0)
    logins._sessions |= {"mine": room.session, "other": other, "bobs": stranger}
    answer = page.post(
        f"{PREFIX}password", data=FORM, headers={"Cookie": "ailab-session=mine; jupyterhub-session-id=b"}
    )
    assert answer.status_code == 303 and ended == [("ann", "token", "b")]
    name = answer.cookies["ailab-session"]
    assert name != "mine" and logins._sessions == {name: room.session, "bobs": stranger}
    assert "jupyterhub-hub-login=signed; HttpOnly; Max-Age=7; Path=/hub/" in answer.headers["set-cookie"]


def test_nothing_is_ended_by_a_link(room: WebRoom, page: TestClient) -> None:
    room.portal.state.logins._sessions["x"] = room.session
    answer = page.get(f"{PREFIX}logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/hub/logout")
    assert room.portal.state.logins._sessions


def test_names_that_nobody_has_are_locked_as_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = Users(Store(tmp_path / "lab.db").open())
    users.add("ann", admin=False, actor="test")
    checked: list[str] = []
    monkeypatch.setattr(Users, "_matches", lambda _users, row, _password: checked.append("x") or False)

    def said(name: str) -> list[str]:
        found = []
        for _attempt in range(module.FAILURES_ALLOWED + 2):
            with pytest.raises(Forbidden) as refused:
                users.log_in(name, "wrong", address="")
            found.append(f"{refused.value.kind} {refused.value.message} {refused.value.remedy}".replace(name, "NAME"))
        return found

    known, unknown = said("ann"), said("nobody")
    assert known == unknown and "locked for 5" in known[-1]
    assert len(checked) == 2 * len(known), "a password is checked, locked or not: that takes most of the time"
    for number in range(module.STRANGERS_KNOWN + 10):
        users._count_failure(f"n{number}", 1, known=False)
    assert len(users._strangers) == module.STRANGERS_KNOWN


def test_a_one_time_password_is_not_spent_where_it_will_not_do(tmp_path: Path) -> None:
    users = Users(Store(tmp_path / "lab.db").open())
    password = users.add("ann", admin=False, actor="test")
    with pytest.raises(Forbidden, match="of your own"):
        users.log_in("ann", password, address="", one_time=False)
    assert users.log_in("ann", password, address="").name == "ann"


@pytest.mark.parametrize(
    ("path", "kind", "policy"),
    [
        ("/services/ailab/mlflow/", "text/html; charset=utf-8", TOOL_PAGE),
        ("/services/ailab/mlflow/get-artifact", "text/html", UPLOADED_PAGE),
        ("/services/ailab/mlflow/get-artifact", "image/svg+xml", UPLOADED_PAGE),
        ("/services/ailab/mlflow/static-files/x.js", "text/javascript", None),
    ],
)
def test_pages_of_tools_have_a_policy(path: str, kind: str, policy: str | None) -> None:
    assert tool_policy(path, {"Content-Type": kind}).get("Content-Security-Policy") == policy
    assert tool_policy(path, {"content-type": kind, "content-security-policy": "x"}) == {}
