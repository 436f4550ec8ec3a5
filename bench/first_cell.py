"""From `docker run` to an executed cell, as a person comes to it: the log's password, the web page, a kernel."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ailab.access.kernel_client import run_cell
from ailab.access.workspace_client import WorkspaceServer
from ailab.resources.ports import free_port
from ailab.waiting import wait_for

READY_SECONDS = 120.0
LOOK_SECONDS = 0.05
CELL = "import tensorflow as tf\nprint(float(tf.reduce_sum(tf.matmul(tf.ones((64, 64)), tf.ones((64, 64))))))"
ANSWER = "262144.0"
PASSWORD_PAGE = "/services/ailab/password"
OWN_PASSWORD = "a password of mine"
HARDENED = {
    "user": "4321:4321",
    "read_only": True,
    "tmpfs": {"/tmp": "exec,mode=1777"},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
}


@dataclass(frozen=True)
class AtPort(WorkspaceServer):
    """A Jupyter server at a port of this machine, where the bench trusts whoever listens."""

    port: int

    def connect(self, timeout: float) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)


class Browser:
    """The cookies of one person at one lab, and the forms that they send."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cookies: dict[str, str] = {}
        self._next = ""

    def ask(self, method: str, path: str, body: str = "", kind: str = "") -> tuple[int, bytes]:
        """One request with what the answers before it have set; status and content."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=READY_SECONDS)
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        headers |= {"Content-Type": kind, "X-XSRFToken": self.token} if kind else {"Accept": "text/html"}
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        content = answer.read()
        self._next = answer.getheader("Location", "")
        for name, value in answer.getheaders():
            if name.lower() == "set-cookie":
                key, _equals, rest = value.partition("=")
                self._cookies[key] = rest.split(";")[0]
        connection.close()
        return answer.status, content

    @property
    def token(self) -> str:
        return self._cookies.get("_xsrf", "")

    def wait_for_workspace(self, user: str) -> None:
        """What the page does that stands between the login and JupyterLab: have the workspace started, and wait."""
        self.ask("POST", f"/hub/api/users/{user}/server", "{}", "application/json")

        def ready() -> bool:
            _status, known = self.ask("GET", f"/hub/api/users/{user}")
            return bool(json.loads(known)["servers"].get("", {}).get("ready"))

        wait_for(ready, timeout=READY_SECONDS, what="the workspace", last=LOOK_SECONDS)

    def log_in(self, user: str, password: str) -> str:
        """Log in by the form, and choose a password; a token of the hub's API for that person."""
        self.ask("GET", "/hub/login")
        form = urlencode({"username": user, "password": password, "_xsrf": self.token})
        status, content = self.ask("POST", "/hub/login", form, "application/x-www-form-urlencoded")
        assert status == http.client.FOUND, content
        self._choose_password()
        self.ask("GET", "/hub/home")
        status, content = self.ask("POST", f"/hub/api/users/{user}/tokens", "{}", "application/json")
        assert status == http.client.CREATED, content
        return str(json.loads(content)["token"])

    def _choose_password(self) -> None:
        self._next = PASSWORD_PAGE
        while self._next:
            _status, content = self.ask("GET", self._next)
        found = re.search(r'name="form_token" value="([^"]+)"', content.decode())
        assert found, content
        form = urlencode({"form_token": found[1], "new": OWN_PASSWORD, "again": OWN_PASSWORD})
        status, content = self.ask("POST", PASSWORD_PAGE, form, "application/x-www-form-urlencoded")
        assert status == http.client.SEE_OTHER, content


def seconds_to_first_cell(client: Any, image: str) -> dict[str, float]:
    """Seconds from `docker run` to the log's password, and to what a cell with TensorFlow has printed."""
    port = free_port("127.0.0.1", 18800)
    started = time.perf_counter()
    container = client.containers.run(image, detach=True, ports={"8888/tcp": ("127.0.0.1", port)}, **HARDENED)
    try:

        def login() -> re.Match[str] | None:
            container.reload()
            said = container.logs().decode()
            assert container.status == "running", said
            return re.search(r"User +(\S+)\s+Password +(\S+)", said)

        found = wait_for(login, timeout=READY_SECONDS, what="the lab's password", last=LOOK_SECONDS)
        ready = time.perf_counter() - started
        browser = Browser(port)
        token = browser.log_in(found[1], found[2])
        browser.wait_for_workspace(found[1])
        printed = run_cell(AtPort(found[1], Path(), token, port), CELL)
        assert printed.strip() == ANSWER, printed
        return {"password": ready, "cell": time.perf_counter() - started}
    finally:
        container.remove(force=True, v=True)
