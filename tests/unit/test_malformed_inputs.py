"""Malformed input at every entrance: refused in our words and one shape, no traceback, no 5xx, nothing changed."""

from __future__ import annotations

import io
import json
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from malformed_inputs import call, command_line
from test_malformed import SETTINGS, malformed
from web_room import WebRoom, routes_of

from ailab import command
from ailab.cli import main
from ailab.client import Client, error_from
from ailab.errors import AilabError
from ailab.resources import ports
from ailab.settings_file import load_settings

# The small version, in the check; `long` is 3,000 in all.
FEW, MANY = 50, 1000
SWEEPS = [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.long)]
SHAPE = ["kind", "message", "remedy", "detail"]
WISH = {"command": ["true"], "cwd": "/", "name": "x", "cpus": 1, "at": 4e9, "env": {"A": "b"}, "inputs": ["/etc/hosts"]}
BODIES: dict[str, dict[str, Any]] = {
    "/api/jobs": {"owner": "ann", "wish": WISH},
    "/stop": {"actor": "ann", "form_token": "form"},
    "/rerun": {"actor": "ann"},
    "/notebook-jobs": {"path": "notebooks/none.ipynb", "words": ["-p", "a", "1"], "gpus": 0, "key": "k"},
    "/workspaces": {"user": "ann", "port": 1, "variables": {"A": "b"}},
    "/logins": {"user": "ann", "password": "wrong", "code": "", "address": "127.0.0.1"},
    "/users/first": {"name": "bob"},
    "/login-links": {"name": "nobody"},
    "/password": {"form_token": "form", "new": "a", "again": "b"},
}
# They end the process, or a workspace would be started.
_LEFT_OUT = ("/api/down", "/api/leave", "/api/workspaces")


@pytest.fixture
def room(tmp_path: Path) -> Iterator[WebRoom]:
    made = WebRoom(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("count", SWEEPS)
def test_requests(room: WebRoom, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Hashing a password takes long on purpose.
    monkeypatch.setattr(type(room.parts.users), "_matches", lambda *_words: False)
    clients, statuses, problems = room.clients(), Counter[int](), list[object]()
    before = room.kept()
    for seed in range(count):
        chance = random.Random(seed)
        name = chance.choice(["portal", "portal", "stranger", "api", "api"])
        routes = routes_of(room.api if name == "api" else room.portal)
        asked = call([route for route in routes if route[0] not in _LEFT_OUT], BODIES, chance)
        headers = {key: value.encode("latin-1") for key, value in asked.headers.items()}
        answer = clients[name].request(asked.method, asked.path, content=asked.body, headers=headers)  # type: ignore[arg-type]
        if answer.status_code >= 500:
            problems.append((seed, asked, answer.text[:300]))
        statuses[answer.status_code // 100] += 1
        is_page = "html" in answer.headers.get("content-type", "")
        if answer.status_code >= 400 and not is_page and list(json.loads(answer.content)["error"]) != SHAPE:
            problems.append((seed, asked, answer.text[:300]))
        after = room.kept()
        is_to_change = answer.status_code < 400 and asked.method != "GET"
        if not is_to_change and _but_locks(after) != _but_locks(before):
            problems.append((seed, asked, answer.status_code, "something has changed"))
        before = after
    assert not problems, "\n".join(map(str, problems[:30]))
    assert statuses[4] > count / 2


def _but_locks(kept: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Without the failures that are counted of a user."""
    return kept | {"users": [row[:5] for row in kept["users"]]}


@pytest.mark.parametrize("count", SWEEPS)
def test_lab_tomls(tmp_path: Path, count: int) -> None:
    refused, path = 0, tmp_path / "lab.toml"
    for seed in range(count):
        written = malformed(SETTINGS, 70_000 + seed)
        path.write_bytes(written)
        try:
            load_settings(path)
        except AilabError as error:
            assert error.message and error.remedy and error.exit_code == 2, seed
            assert "bug" not in error.message, seed
            refused += 1
        assert path.read_bytes() == written
    assert count / 3 < refused


@pytest.mark.parametrize("count", SWEEPS)
def test_command_lines(room: WebRoom, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = room.clients()["api"]

    def answered(_client: Client, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = api.request(method, re.sub(r"[^!-~]", "?", path), json=body)
        if answer.status_code >= 400:
            assert answer.status_code < 500, answer.text
            raise error_from(answer.content)
        return answer.json()

    def no_program(words: Any, **_options: Any) -> Any:
        raise AilabError(f"{str(words[0])[:50]} would run", remedy="go on")

    def is_free(_address: str, port: int) -> bool:
        if port < 1024:
            raise PermissionError
        return True

    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(Client, "call", answered)
    monkeypatch.setattr(command, "run", no_program)
    # As an ordinary account.
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(ports, "is_free", is_free)
    monkeypatch.setenv("AILAB_HOME", str(home))
    monkeypatch.setenv("AILAB_LANG", "en")
    monkeypatch.chdir(home)
    root, before, rows = room.parts.lab.paths.root, _files(tmp_path), room.kept()
    seen, problems = Counter[int](), list[object]()
    for seed in range(count):
        words = ["--lab", str(root), *command_line(random.Random(90_000 + seed))]
        status, told = run(words, monkeypatch)
        if status not in (0, 1, 2) or "Traceback" in told or "bug in ailab" in told or (status and not told.strip()):
            problems.append((seed, words[2:], status, told[-300:]))
        seen[status] += 1
        after, changed = _files(tmp_path), room.kept()
        if status and (changed, after) != (rows, before):
            problems.append((seed, words[2:], status, "something has changed", sorted(set(after) ^ set(before))[:3]))
        before, rows = after, changed
    assert not problems, "\n".join(map(str, problems[:30]))
    assert seen[1] + seen[2] > count / 2


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The command's exit status, and all that it says, on streams that take UTF-8 alone, as a terminal's do."""
    out, err = (
        io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors) for errors in ("strict", "backslashreplace")
    )
    with monkeypatch.context() as streams:
        streams.setattr(sys, "stdout", out)
        streams.setattr(sys, "stderr", err)
        status = main.run(words)
    for stream in (out, err):
        stream.flush()
    return status, "".join(stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]


def _files(folder: Path) -> dict[Path, bytes | None]:
    """Every file's content and every folder, but those that come with looking: locks, the store, caches."""
    left_out = re.compile(r"\.lock$|lab\.db|/home/(cache|tools|labs|locks)|/\.ailab/(run|log)")
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if not left_out.search(str(path))
    }
