"""Workspaces that an older ailab has started on TCP ports: no route leads there any more, and they move to sockets."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from threading import Thread

import pytest
from patients import a_lab

from ailab import events
from ailab.access import hub_client
from ailab.access.secret_files import secret
from ailab.containers import workspace_of
from ailab.daemon import workspace_renewal
from ailab.daemon.parts import Parts
from ailab.daemon.workspace_renewal import MOVED, leave_tcp, renew_stopped
from ailab.errors import NotFound
from ailab.lab import Lab
from ailab.paths import LabPaths
from ailab.runtimes.base import TaskSpec, TaskState
from ailab.waiting import wait_for

NAME = "workspace-li"
SOCKET = "http+unix://%2Fsrv%2Flab%2Fjupyter.sock"
HUBS = {"JUPYTERHUB_SERVICE_PREFIX": "/user/li/", "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:36349/user/li/"}
SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")


@pytest.fixture
def lab(tmp_path: Path) -> LabPaths:
    return a_lab(tmp_path / "lab")


@pytest.fixture
def parts(lab: LabPaths, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    """Of a daemon whose workspaces sleep."""

    def sleeping(lab: Lab, user: str, variables: Mapping[str, str]) -> TaskSpec:
        return replace(workspace_of(lab, user, variables), command=SLEEP)

    monkeypatch.setattr(workspace_renewal, "workspace_of", sleeping)
    made = Parts.of(Lab.open(lab.root))
    yield made
    made.supervisor.stop_all()
    made.supervisor.close()
    made.worker.close()


def want_as_before(parts: Parts) -> TaskSpec:
    """A workspace as 9656374 has started it."""
    environment = {"PATH": os.defpath, "JUPYTERHUB_API_TOKEN": "its own", **HUBS}
    spec = TaskSpec(NAME, NAME, "workspace", SLEEP, environment, cwd="/", ports=(36349,), grace=1.0)
    parts.supervisor.want(spec, owner="li", actor="li")
    return spec


def settle(parts: Parts, condition: Callable[[], bool], what: str) -> None:
    """Reconcile as the daemon's loop does until the condition holds."""

    def holds() -> bool:
        parts.supervisor.reconcile()
        return condition()

    wait_for(holds, timeout=20, what=what)


def sockets_of(parts: Parts) -> tuple[int | str, ...]:
    return (str(parts.lab.paths.workspace_socket("li")),)


def test_one_that_runs_is_replaced_and_keeps_its_token(parts: Parts) -> None:
    want_as_before(parts)
    renew_stopped(parts)
    assert parts.supervisor.task(NAME).spec.ports == (36349,), "what runs is left until the old hub has gone"
    leave_tcp(parts)
    settle(parts, lambda: parts.supervisor.task(NAME).seen.attempt == 2, "the next attempt")
    runs_as = parts.lab.runtime.spec(NAME)
    assert runs_as == parts.supervisor.task(NAME).spec and runs_as is not None
    assert runs_as.ports == sockets_of(parts) and runs_as.environment["JUPYTERHUB_API_TOKEN"] == "its own"
    assert MOVED in [event["detail"].get("reason") for event in events.newest(parts.lab.store, 20)]
    leave_tcp(parts)
    assert parts.supervisor.task(NAME).seen.attempt == 2, "it is moved once"


def test_a_kill_between_the_change_and_the_restart_is_made_good(parts: Parts) -> None:
    before = want_as_before(parts)
    parts.supervisor.respecify(replace(before, ports=sockets_of(parts)))
    leave_tcp(parts)
    settle(parts, lambda: parts.supervisor.task(NAME).seen.attempt == 2, "the next attempt")


def test_one_that_does_not_run_starts_at_its_socket(parts: Parts) -> None:
    want_as_before(parts)
    parts.supervisor.stop_all()
    renew_stopped(parts)
    leave_tcp(parts)
    task = parts.supervisor.task(NAME)
    assert (task.spec.ports, task.seen.attempt, task.wanted) == (sockets_of(parts), 1, True)


def test_one_that_cannot_be_started_otherwise_is_stopped(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_image(*_words: object) -> TaskSpec:
        raise NotFound("no image")

    monkeypatch.setattr(workspace_renewal, "workspace_of", no_image)
    want_as_before(parts)
    leave_tcp(parts)
    settle(parts, lambda: parts.lab.runtime.poll(NAME).state == TaskState.exited, "the end")
    settle(parts, lambda: not parts.supervisor.tasks(), "the workspace to be wanted no more")


class Proxy(UnixStreamServer):
    """configurable-http-proxy's API, as far as routes are read and removed."""

    def __init__(self, lab: LabPaths, routes: dict[str, str]) -> None:
        ours = self
        self.routes = routes
        self.token = f"token {secret(lab, 'proxy-token')}"

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(200, {path: {"target": target} for path, target in ours.routes.items()})

            def do_DELETE(self) -> None:
                path = self.path.removeprefix("/api/routes")
                self.answer(204 if ours.routes.pop(path + "/", None) or ours.routes.pop(path, None) else 404, None)

            def answer(self, status: int, body: object) -> None:
                data = json.dumps(body).encode() if body is not None else b""
                self.send_response(status if self.headers["Authorization"] == ours.token else 403)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_words: object) -> None:
                pass

        super().__init__(str(lab.run / "proxy-api.sock"), Handler)
        Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


def test_routes_to_ports_are_dropped_and_those_to_sockets_stay(lab: LabPaths) -> None:
    routes = {"/": SOCKET, "/user/li/": "http://127.0.0.1:36349", "/user/ada/": SOCKET, "/user/no": "https://[::1]:1"}
    with Proxy(lab, routes) as proxy:
        hub_client.drop_tcp_routes(lab)
        proxy.shutdown()
    assert proxy.routes == {"/": SOCKET, "/user/ada/": SOCKET}


def test_a_proxy_that_does_not_run_has_no_routes(lab: LabPaths) -> None:
    hub_client.drop_tcp_routes(lab)
