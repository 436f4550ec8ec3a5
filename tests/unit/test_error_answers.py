"""Errors of the portal and the daemon's API: one JSON shape, the right status, the caller's language."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from web_room import PREFIX, WebRoom, routes_of

from ailab.portal import request_body

PARAMETERS = ("{job}", "{other}", "{schedule}")
GOOD = {"{task_id}": "hub", "{code}": "en", "{name}": "ann"}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PAGE = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebRoom]:
    made = WebRoom(tmp_path_factory.mktemp("web"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def clients(room: WebRoom) -> dict[str, TestClient]:
    return room.clients()


def error_of(answer: Any) -> dict[str, str]:
    """The error in the answer, which has the one shape and nothing beside it."""
    body = json.loads(answer.content)
    assert list(body) == ["error"] and list(body["error"]) == ["kind", "message", "remedy", "detail"], body
    assert all(isinstance(text, str) for text in body["error"].values()) and body["error"]["message"]
    found: dict[str, str] = body["error"]
    return found


def address(path: str, number: str = "1") -> str:
    for name in PARAMETERS:
        path = path.replace(name, number)
    for name, value in GOOD.items():
        path = path.replace(name, value)
    return path


@pytest.mark.parametrize("name", ["portal", "api"])
def test_a_wrong_method_is_405_and_says_which_are_right(
    room: WebRoom, clients: dict[str, TestClient], name: str
) -> None:
    routes = routes_of(getattr(room, name))
    assert len(routes) > 15
    for path, methods in routes:
        for method in set(METHODS) - methods:
            answer = clients[name].request(method, address(path))
            assert answer.status_code == 405, (method, path)
            assert error_of(answer)["kind"] == "wrong-method"
            assert methods <= set(answer.headers["allow"].split(", ")), (method, path)


def test_files_of_the_portal_are_read_only(clients: dict[str, TestClient]) -> None:
    answer = clients["portal"].post(f"{PREFIX}static/live.js")
    assert answer.status_code == 405 and answer.headers["allow"] == "GET, HEAD" and error_of(answer)


@pytest.mark.parametrize("name", ["portal", "stranger", "api"])
def test_an_unknown_page_is_404(clients: dict[str, TestClient], name: str) -> None:
    for path in ("/nowhere", f"{PREFIX}nowhere", f"{PREFIX}nowhere/at/all", f"{PREFIX}static/none.js",
                 f"{PREFIX}static/%00", "/api/nowhere", "/api/jobs/1/nowhere"):  # fmt: skip
        for method in METHODS:
            answer = clients[name].request(method, path)
            assert answer.status_code in (404, 405), (method, path)
            error_of(answer)
        assert clients[name].get(path).status_code == 404


@pytest.mark.parametrize(
    "number", ["9223372036854775808", "9" * 5000, "-1", "1.5", "nan", "inf", "0x1", "%00", "é", "١٢"]
)
@pytest.mark.parametrize("name", ["portal", "api"])
def test_no_id_is_too_strange(room: WebRoom, clients: dict[str, TestClient], name: str, number: str) -> None:
    before = room.kept()
    for path, methods in routes_of(getattr(room, name)):
        if any(parameter in path for parameter in PARAMETERS):
            for method in methods:
                answer = clients[name].request(method, address(path, number), data={"form_token": "form"})
                assert 400 <= answer.status_code < 500, (method, path)
                error_of(answer)
    for query in (f"limit={number}", f"array={number}", f"job={number}&job=1", f"after={number}", f"member={number}"):
        for path in ("api/jobs", "api/jobs/1/log", "jobs/compare", "api/events", "jobs/tensorboard"):
            found = f"{PREFIX}{path}" if name == "portal" else f"/{path.replace('jobs/compare', 'api/comparison')}"
            assert clients[name].get(f"{found}?{query}").status_code < 500, (found, query)
    assert room.kept() == before


BODIES = [
    b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"[]", b"1e999", b'{"a": NaN}', b'"\\ud800"', b"\0",
    b'{"wish": 1}',
    b'{"wish": {"command": ["a\\u0000b"]}, "owner": "ann"}', b'{"wish": {"\\ud800": 1}, "owner": "ann"}',
    b'{"path": "a\\u0000.ipynb"}', b'{"path": "\\ud800.ipynb"}',
    b'{"wish": {"command": ["a"], "at": 1e308}, "owner": "ann"}', b'{"wish": {"command": ["a"], "after": ["9"]}}',
]  # fmt: skip
KINDS = ["application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "a/b;c=\xff", ""]


@pytest.mark.parametrize("name", ["portal", "api"])
def test_no_body_is_too_strange(room: WebRoom, clients: dict[str, TestClient], name: str) -> None:
    before = room.kept()
    for path, methods in routes_of(getattr(room, name)):
        if "POST" not in methods or path in ("/api/down", "/api/leave") or path.endswith(("/rerun", "/stop")):
            continue
        for body in BODIES:
            for kind in KINDS:
                headers = {"Content-Type": kind.encode("latin-1")} if kind else {}
                answer = clients[name].post(address(path), content=body, headers=headers)  # type: ignore[arg-type]
                assert 400 <= answer.status_code < 500, (path, body[:60], kind, answer.text[:200])
                error_of(answer)
    assert room.kept() == before


def test_errors_are_in_the_callers_language(clients: dict[str, TestClient], tmp_path: Path) -> None:
    answer = clients["api"].get("/api/nowhere", headers={"Accept-Language": "zh"})
    assert error_of(answer)["message"] == "没有这个页面。"
    assert error_of(clients["api"].get("/api/nowhere"))["message"] == "There is no such page."
    chosen = clients["portal"].get(f"{PREFIX}api/jobs/77", headers={"Cookie": "ailab-session=x; ailab-language=zh"})
    assert chosen.status_code == 404 and "没有" in error_of(chosen)["message"]
    page = clients["portal"].get(f"{PREFIX}api/jobs/x", headers=PAGE | {"Cookie": "ailab-session=x; ailab-language=zh"})
    assert page.status_code == 400 and page.headers["content-type"].startswith("text/html") and "整数" in page.text
    chinese = WebRoom(tmp_path, language="zh")
    try:
        assert error_of(chinese.clients()["stranger"].get(f"{PREFIX}api/status"))["message"] == "你还没有登录。"
    finally:
        chinese.close()


def test_what_fails_unexpectedly_has_the_shape_too(
    room: WebRoom, clients: dict[str, TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_words: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(type(room.parts.jobs), "get", broken)
    for name, path in (("api", "/api/jobs/1"), ("portal", f"{PREFIX}api/jobs/1")):
        answer = clients[name].get(path)
        assert answer.status_code == 500 and "bug" in error_of(answer)["message"]


def test_a_large_body_is_refused_and_read_to_its_end(
    clients: dict[str, TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_body, "LARGEST_BODY", 100_000)
    taken = []

    def body() -> Iterator[bytes]:
        for piece in range(40):
            taken.append(piece)
            yield b" " * 10_000

    for name, path in (("api", "/api/jobs"), ("portal", f"{PREFIX}api/jobs"), ("stranger", f"{PREFIX}nowhere")):
        taken.clear()
        answer = clients[name].post(path, content=body(), headers={"Content-Type": "application/json"})
        assert answer.status_code == (404 if name == "stranger" else 413) and error_of(answer)
        assert len(taken) == 40
