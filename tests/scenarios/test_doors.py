"""Who gets in: accounts, ports, sockets, secrets, passwords."""

from __future__ import annotations

import http.client
import os
import pwd
import secrets
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest
from conftest import CommandLine, made_lab
from rooms import kernel, listening, processes_of, tasks
from web_door import web_door

from ailab.access import kernel_client
from ailab.settings_file import set_value

pytestmark = pytest.mark.lab
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root: no other machine was tried")


def test_nothing_of_the_lab_runs_as_root(science: CommandLine) -> None:
    running = processes_of(science)
    assert len(running) >= 7
    assert all(process.uids().real != 0 for process in running) or os.geteuid() != 0
    if os.geteuid() == 0:
        account = science.environment["AILAB_ACCOUNT"]
        assert {task["account"] for task in tasks(science).values()} == {account}
        assert pwd.getpwuid(science.lab.stat().st_uid).pw_name == account


def test_secrets_are_closed_and_in_no_command_line(science: CommandLine) -> None:
    for folder in (science.paths.state, science.paths.secrets, science.paths.tasks, science.paths.run):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    told = [path.read_text() for path in science.paths.secrets.iterdir()]
    shown = " ".join(" ".join(process.cmdline()) for process in processes_of(science))
    assert told and not any(secret in shown for secret in told)


def test_every_port_is_on_loopback_and_wants_a_login(science: CommandLine) -> None:
    user = science.up()["login"]["user"]
    found = listening(science)
    assert science.web in found and {address for address, _port in found} == {"127.0.0.1"}
    inside = (f"/user/{user}/api/kernels", f"/user/{user}/api/contents", "/hub/api/users", "/services/ailab/api/status",
              "/services/ailab/tensorboard/data/runs", "/api/routes")  # fmt: skip
    for port in {port for _address, port in found if not is_pipe(port)}:
        for path in inside:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", path)
            assert connection.getresponse().status in (302, 303, 401, 403, 404), (port, path)
            connection.close()


def test_a_kernel_has_no_port_but_its_closed_pipe(science: CommandLine) -> None:
    """ipykernel binds one TCP socket whatever its transport: for the output of its own subprocesses, which bring a
    secret with each message (ipykernel.iostream, _pipe_uuid). A debugger's would be a second one."""
    kernel(science, science.up()["login"]["user"])
    kernels = [process for process in processes_of(science) if "ipykernel_launcher" in process.cmdline()]
    assert kernels
    for process in kernels:
        ports = [c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        assert len(ports) <= 1 and all(is_pipe(port) for port in ports)


def is_pipe(port: int) -> bool:
    """Whether ZeroMQ listens there, by its greeting (ZMTP 3.1, 3.2: a signature of ten bytes, FF ... 7F)."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.settimeout(0.5)
        try:
            said = connection.recv(10)
        except TimeoutError:
            return False
    return said[:1] == b"\xff" and said[9:] == b"\x7f"


@contextmanager
def another_machine() -> Iterator[tuple[tuple[str, ...], str]]:
    """A network namespace of its own, joined to this machine by a cable; the words that run a command in it, and this
    machine's address at the cable. Names and addresses (RFC 2544's, for tests) are this one's alone."""
    number = secrets.randbelow(2**14)
    name, near, far = (f"ailab-{part}{number}" for part in ("t", "n", "f"))
    here, there = (f"198.18.{number // 64}.{number % 64 * 4 + host}" for host in (1, 2))
    make = [f"ip netns add {name}", f"ip link add {near} type veth peer name {far} netns {name}",
            f"ip addr add {here}/30 dev {near}", f"ip link set {near} up",
            f"ip -n {name} addr add {there}/30 dev {far}", f"ip -n {name} link set {far} up"]  # fmt: skip
    try:
        for words in make:
            subprocess.run(words.split(), check=True)
        yield ("ip", "netns", "exec", name), here
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)
        subprocess.run(["ip", "link", "del", near], check=False, capture_output=True)


@pytest.fixture(scope="module")
def watched(machine_home: Path) -> Iterator[tuple[CommandLine, Any]]:
    """A lab of this file, whose settings and logins are tried; what its first `up` said."""
    with made_lab(machine_home, "science") as line:
        yield line, line.up()


def open_from(there: tuple[str, ...], here: str, ports: list[int]) -> set[int]:
    """Which of `ports` of this machine can be connected to from there."""
    code = """
import socket, sys
for port in sys.argv[2:]:
    try: socket.create_connection((sys.argv[1], int(port)), 3).close()
    except OSError: continue
    print(port)
"""
    words = [*there, "python3", "-c", code, here, *map(str, ports)]
    return {int(port) for port in subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()}


@needs_root
@pytest.mark.root
def test_another_machine_sees_nothing_by_default_and_then_only_the_web_port(
    watched: tuple[CommandLine, Any],
) -> None:
    another, up = watched
    user = up["login"]["user"]
    kernel_client.execute(web_door(another, user), kernel(another, user), "1 + 1")
    ports = sorted({port for _address, port in listening(another)})
    assert len(ports) >= 2
    with another_machine() as (there, here):
        assert open_from(there, here, ports) == set()
        set_value(another.paths.settings, "access", "bind", "0.0.0.0")
        widened = another.up()
        assert widened["state"] == "ready"
        ports = sorted({port for _address, port in listening(another)})
        assert len(ports) >= 2 and open_from(there, here, ports) == {another.web[1]}


def log_in(lab: CommandLine, user: str, password: str) -> int:
    """Log in as a browser does: fetch the form with its token, post it; the status of the answer."""
    connection = http.client.HTTPConnection(*lab.web, timeout=30)
    connection.request("GET", "/hub/login")
    form = connection.getresponse()
    form.read()
    cookie = "; ".join(value.split(";")[0] for name, value in form.getheaders() if name.lower() == "set-cookie")
    token = next(part.split("=", 1)[1] for part in cookie.split("; ") if part.startswith("_xsrf="))
    body = urlencode({"username": user, "password": password, "_xsrf": token})
    headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/hub/login", body, headers)
    return connection.getresponse().status


def test_five_wrong_passwords_lock_the_account(watched: tuple[CommandLine, Any]) -> None:
    another, up = watched
    login = up["login"]
    user, password = login["user"], login["password"]
    for _attempt in range(5):
        assert log_in(another, user, "wrong") in (200, 403)
    assert log_in(another, user, password) == 403
    logins = [event for event in another.json("events") if event["kind"] == "login"]
    assert logins[0]["detail"]["reason"] == "locked" and "locked" in [event["after"] for event in logins]
    another.run("open", "--no-browser")
    assert log_in(another, user, password) == 302
    assert log_in(another, user, password) == 403, "a one-time password works once"
