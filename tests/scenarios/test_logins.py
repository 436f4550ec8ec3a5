"""Logins through the public door: whose address is recorded, what ends them, what a one-time password opens."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from browsing import (
    OWN_PASSWORD,
    PAGE,
    PORTAL,
    Person,
    browser,
    choose_password,
    hidden,
    log_in,
    new_person,
    users_of,
    with_own_password,
)
from conftest import CommandLine
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from ailab import events
from ailab.access.hub_client import hub_call, start_server
from ailab.store import Store

pytestmark = pytest.mark.lab
LIES = {
    "X-Forwarded-For": "203.0.113.7, 203.0.113.8",
    "X-Real-Ip": "203.0.113.9",
    "X-Scheme": "https",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "443",
    "X_Forwarded_For": "203.0.113.10",
    "Forwarded": "for=203.0.113.11;proto=https",
}


@pytest.fixture
def person(science: CommandLine) -> Person:
    return with_own_password(science)


@pytest.fixture
def stranger(science: CommandLine) -> Person:
    """Somebody with a one-time password."""
    return new_person(science)


@pytest.fixture
def workspace(science: CommandLine, person: Person) -> Iterator[str]:
    """The path of a workspace of theirs, which runs."""
    start_server(science.paths, person.name)
    yield f"/user/{person.name}"
    hub_call(science.paths, "DELETE", f"/users/{person.name}/server")


def logins_of(lab: CommandLine, user: str) -> list[dict[str, Any]]:
    found = events.newest(Store(lab.paths.database).open(), 200)
    return [event for event in found if (event["kind"], event["subject"]) == ("login", user)]


def test_a_client_says_nothing_about_its_address_or_scheme(science: CommandLine, person: Person) -> None:
    with browser(science, **LIES) as page:
        refused = log_in(page, person.name, "wrong")
        assert refused.status_code == 403
        entered = log_in(page, person.name, person.password)
        assert entered.url.path == PORTAL
        form = choose_password(page, "another password of mine", "not the current one")
        assert form.status_code == 422
        answers = [*refused.history, refused, *entered.history, entered]
        cookies = [value for answer in answers for value in answer.headers.get_list("set-cookie")]
        assert cookies and not any("secure" in value.lower() for value in cookies), "the scheme is ours, not theirs"
        assert all("evil.example" not in answer.headers.get("location", "") for answer in answers)
    addresses = [event["detail"]["address"] for event in logins_of(science, person.name)]
    assert addresses == ["127.0.0.1"] * 3


def test_a_new_password_ends_all_other_logins_and_this_one_goes_on(
    science: CommandLine, person: Person, workspace: str
) -> None:
    with browser(science) as mine, browser(science) as theirs:
        for page in (mine, theirs):
            answers = [log_in(page, person.name, person.password), page.get(f"{workspace}/lab"), page.get("/hub/token")]
            check_cookies(person.name, answers)
            assert page.get(f"{workspace}/api/kernels").status_code == 200
        made = theirs.post(
            f"/hub/api/users/{person.name}/tokens",
            json={"note": f"Server at {workspace}/"},
            params={"_xsrf": hub_xsrf(theirs)},
        )
        token = {"Authorization": f"token {made.json()['token']}"}
        host, port = science.web
        cookie = "; ".join(
            f"{one.name}={one.value}" for one in theirs.cookies.jar if one.path in ("/", f"{workspace}/")
        )
        address = f"ws://{host}:{port}{workspace}/api/events/subscribe"
        with connect(address, additional_headers={"Cookie": cookie}, origin=f"http://{host}:{port}") as socket:  # type: ignore[arg-type]
            assert choose_password(mine, "another password of mine", person.password).url.path == PORTAL
            with pytest.raises(ConnectionClosed):
                socket.recv(timeout=10)
        for path in (PORTAL, "/hub/home", f"{workspace}/lab"):
            assert mine.get(path).url.path == path, "the one who changed it stays logged in"
            assert theirs.get(path).url.path == "/hub/login", path
        assert mine.get(f"{workspace}/api/kernels").status_code == 200
        assert theirs.get(f"{workspace}/api/kernels").status_code == 403
        for path in ("/hub/api/user", f"{workspace}/api/kernels", f"{PORTAL}api/status"):
            answer = httpx.get(f"http://{host}:{port}{path}", headers=token)
            assert answer.status_code in (401, 403), path
    status, server = hub_call(science.paths, "GET", f"/users/{person.name}")
    assert status == http.client.OK and server["servers"][""]["ready"], "the workspace goes on"
    with browser(science) as later:
        assert log_in(later, person.name, person.password).status_code == 403
        assert log_in(later, person.name, "another password of mine").url.path == PORTAL


def check_cookies(user: str, answers: list[httpx.Response]) -> None:
    """Every cookie of a login and of JupyterLab stays on this site, and those that let somebody in end."""
    cookies = [
        value for last in answers for one in (*last.history, last) for value in one.headers.get_list("set-cookie")
    ]
    names = {value.partition("=")[0] for value in cookies}
    lets_in = {"jupyterhub-hub-login", "ailab-session", f"jupyterhub-user-{user}"}
    assert lets_in | {"jupyterhub-session-id", "_xsrf"} <= names
    for value in cookies:
        assert "samesite=lax" in value.lower(), value
        assert value.partition("=")[0] not in lets_in or "expires=" in value or "Max-Age" in value, value


def hub_xsrf(page: httpx.Client) -> str:
    return next(cookie.value or "" for cookie in page.cookies.jar if cookie.name == "_xsrf" and cookie.path == "/hub/")


def test_a_one_time_password_opens_the_form_and_nothing_else(science: CommandLine, stranger: Person) -> None:
    host, port = science.web
    code = users_of(science).make_link_code(stranger.name, actor="test")
    for brought in ({"username": stranger.name, "password": stranger.password}, {"code": code}):
        tokens = f"http://{host}:{port}/hub/api/users/{stranger.name}/tokens"
        assert httpx.post(tokens, json={"auth": brought}).status_code == 403
    with browser(science) as page:
        assert log_in(page, stranger.name, stranger.password).url.path == f"{PORTAL}password"
        for path in (
            PORTAL, f"{PORTAL}jobs", f"{PORTAL}leases", f"{PORTAL}tensorboard/", f"{PORTAL}mlflow/",
            "/hub/", "/hub/home", "/hub/spawn", "/hub/token", f"/user/{stranger.name}/lab", f"/user/{stranger.name}/",
        ):  # fmt: skip
            assert page.get(path).url.path == f"{PORTAL}password", path
        for path in (f"{PORTAL}api/status", f"{PORTAL}api/jobs", "/hub/api/user", f"/hub/api/users/{stranger.name}"):
            assert page.get(path, headers={"Accept": "application/json"}).status_code == 403, path
        made = page.post(f"/hub/api/users/{stranger.name}/tokens", params={"_xsrf": hub_xsrf(page)})
        assert made.status_code == 403
        started = page.post(f"/hub/api/users/{stranger.name}/server", params={"_xsrf": hub_xsrf(page)})
        assert started.status_code == 403
        assert choose_password(page, OWN_PASSWORD).url.path == PORTAL
        for path in (f"{PORTAL}jobs", "/hub/token"):
            assert page.get(path).url.path == path


def test_a_login_link_leaves_no_trace_in_the_next_address(science: CommandLine, person: Person) -> None:
    for query in (
        "",
        "&next=/hub/home",
        "&next=//evil.example/",
        "&next=https://evil.example/",
        "&next=http://[",
        "&x=1",
    ):
        code = users_of(science).make_link_code(person.name, actor="test")
        with browser(science) as page:
            answer = page.get(f"/hub/login-link?code={code}{query}", follow_redirects=False)
            assert answer.status_code == 302 and code not in answer.headers["location"]
            assert answer.headers["location"] == ("/hub/home" if query == "&next=/hub/home" else PORTAL)
            assert answer.headers["referrer-policy"] == "no-referrer"
            spent = page.get(f"/hub/login-link?code={code}")
            assert spent.status_code == 403 and code not in spent.text


def test_logging_out_takes_a_button(science: CommandLine, person: Person) -> None:
    with browser(science) as page:
        log_in(page, person.name, person.password)
        for path in ("/hub/logout", f"{PORTAL}logout"):
            shown = page.get(path)
            assert shown.url.path == "/hub/logout" and "Log out of the lab?" in shown.text
            assert page.get(PORTAL).url.path == PORTAL and page.get("/hub/home").url.path == "/hub/home"
        assert page.post("/hub/logout").status_code == 403, "another site's form has no token"
        assert page.get("/hub/home").url.path == "/hub/home"
        cookies = {"ailab-session": page.cookies["ailab-session"]}
        gone = page.post("/hub/logout", data={"_xsrf": hidden(shown.text, "_xsrf")})
        assert gone.url.path == "/hub/login"
        assert page.get(PORTAL).url.path == "/hub/login"
        kept = page.get(PORTAL, headers={"Cookie": f"ailab-session={cookies['ailab-session']}"}, follow_redirects=False)
        assert kept.status_code == 303 and "oauth2" in kept.headers["location"], "the portal's session is over, too"


def test_pages_and_json_carry_safe_headers(science: CommandLine, person: Person) -> None:
    with browser(science) as page:
        log_in(page, person.name, person.password)
        for path in (f"{PORTAL}api/status", f"{PORTAL}tensorboard/data/runs", f"{PORTAL}api/nowhere", "/hub/api/user"):
            answer = page.get(path, headers={"Accept": "application/json"})
            assert "json" in answer.headers["content-type"], path
            assert answer.headers["x-content-type-options"] == "nosniff", path
            assert answer.headers["cache-control"] == "no-store", path
        for path in (PORTAL, f"{PORTAL}tensorboard/", f"{PORTAL}nowhere", "/hub/home"):
            answer = page.get(path, headers=PAGE)
            assert "content-security-policy" in answer.headers, path
