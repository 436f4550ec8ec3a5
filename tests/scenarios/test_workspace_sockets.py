"""A workspace in a real lab: no port, a closed socket, the same route through restarts, and nothing for strangers."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psutil
import pytest
import zmq
from conftest import CommandLine, free_port
from rooms import is_ready, kernel, tasks
from strangers import as_stranger, needs_stranger, stranger_at
from web_door import web_door

from ailab.access import kernel_client
from ailab.access.secret_files import secret
from ailab.access.services import socket_url
from ailab.client import UnixConnection
from ailab.daemon.supervisor import LONGEST_PAUSE
from ailab.paths import LabPaths
from ailab.resources.ports import listening_uids
from ailab.waiting import wait_for

pytestmark = pytest.mark.lab


def routes(paths: LabPaths) -> dict[str, str]:
    """Where the proxy leads, by path."""
    with closing(UnixConnection(paths.run / "proxy-api.sock", timeout=5)) as proxy:
        proxy.request("GET", "/api/routes", headers={"Authorization": f"token {secret(paths, 'proxy-token')}"})
        found = json.loads(proxy.getresponse().read())
    return {path.rstrip("/"): route["target"] for path, route in found.items()}


def ports_of(lab: CommandLine, task_id: str) -> dict[str, list[int]]:
    """The TCP ports that the processes of a task listen on, by what they are."""
    top = psutil.Process(tasks(lab)[task_id]["pid"])
    found: dict[str, list[int]] = {"server": [], "kernels": []}
    for process in [top, *top.children(recursive=True)]:
        kind = "kernels" if "ipykernel_launcher" in " ".join(process.cmdline()) else "server"
        found[kind] += [c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    return found


def test_a_workspace_has_no_port_and_its_route_outlives_all_restarts(science: CommandLine, first_up: Any) -> None:
    science.up()
    user = first_up["login"]["user"]
    place = science.paths.workspace_socket(user)

    def holds() -> bool:
        return place.is_socket() and routes(science.paths).get(f"/user/{user}") == socket_url(place)

    assert holds() and ports_of(science, f"workspace-{user}")["server"] == []
    before = tasks(science)
    os.kill(before["hub"]["pid"], signal.SIGKILL)
    again = "the lab after a kill of the hub"
    wait_for(lambda: is_ready(science) and tasks(science)["hub"]["pid"] != before["hub"]["pid"], timeout=30, what=again)
    assert kernel_client.run_cell(web_door(science, user), "print(41 + 1)").strip() == "42"
    os.kill(int((science.paths.run / "daemon.lock").read_text()), signal.SIGKILL)
    science.up()
    assert holds() and tasks(science)[f"workspace-{user}"]["pid"] == before[f"workspace-{user}"]["pid"]
    science.run("down")
    science.up()
    assert holds()
    assert kernel_client.run_cell(web_door(science, user), "print(41 + 1)").strip() == "42"


@needs_stranger
@pytest.mark.root
def test_another_account_cannot_connect(science: CommandLine, first_up: Any) -> None:
    science.up()
    place = science.paths.workspace_socket(first_up["login"]["user"])
    seen, owner = place.parent.stat(), science.paths.state.stat()
    assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o7) == (owner.st_uid, owner.st_gid, 0)
    assert place.stat().st_mode & 0o7 == 0
    tried = as_stranger(f"import socket; socket.socket(socket.AF_UNIX).connect({str(place)!r}); print('connected')")
    assert tried.endswith("PermissionError: [Errno 13] Permission denied")


def test_a_kernel_drops_what_a_stranger_sends_to_its_pipe(science: CommandLine, first_up: Any) -> None:
    """ipykernel's one TCP port, which no setting closes: it takes what forked children print, with a random key."""
    user = science.up()["login"]["user"]
    held = kernel(science, user)
    kernel_client.execute(web_door(science, user), held, "kept = 41")
    header = {"msg_id": "1", "msg_type": "stream", "session": "1", "username": "x", "date": "", "version": "5.3"}
    said = [json.dumps(header).encode(), b"{}", b"{}", json.dumps({"name": "stdout", "text": "forged"}).encode()]
    asked = [json.dumps(header | {"msg_type": "execute_request"}).encode(), b"{}", b"{}", b'{"code": "kept = 0"}']
    with zmq.Context() as context:
        for port in ports_of(science, f"workspace-{user}")["kernels"]:
            with context.socket(zmq.PUSH) as sender:
                sender.connect(f"tcp://127.0.0.1:{port}")
                for message in (said, asked):
                    for key in (b"", os.urandom(16)):
                        sender.send_multipart([key, b"stream", b"<IDS|MSG>", b"", *message])
                sender.send(b"no parts at all")
    log = science.paths.tasks / f"workspace-{user}" / "log"
    wait_for(lambda: "no parts at all" in log.read_text(), timeout=10, what="the kernel to refuse the messages")
    assert "Bad pipe message" in log.read_text()
    assert kernel_client.execute(web_door(science, user), held, "print(kept + 1)").strip() == "42"


@pytest.fixture
def stopped(another: CommandLine) -> Iterator[tuple[CommandLine, str, int]]:
    """A lab that 9656374 has left with a workspace at a TCP port, stopped: the lab, the user, the port."""
    user = another.up()["login"]["user"]
    another.run("down")
    port = free_port()
    kept = another.paths.tasks / f"workspace-{user}" / "spec.json"
    document = json.loads(kept.read_text())
    spec = document["spec"] | {"ports": [port]}
    spec["environment"]["JUPYTERHUB_SERVICE_URL"] = f"http://127.0.0.1:{port}/user/{user}/"
    kept.write_text(json.dumps(document | {"spec": spec}))
    with closing(sqlite3.connect(another.paths.database)) as store, store:
        store.execute("update tasks set spec = ? where id = ?", (json.dumps(spec), f"workspace-{user}"))
    with closing(sqlite3.connect(another.paths.hub / "hub.sqlite")) as hub, hub:
        hub.execute("update servers set proto = 'http', ip = '127.0.0.1', port = ?", (port,))
        state = json.dumps({"port": port, "address": f"127.0.0.1:{port}"})
        hub.execute("update spawners set state = ? where server_id is not null", (state,))
    own = another.paths.state / "jupyter-config" / "jupyter_server_config.json"
    own.parent.mkdir(exist_ok=True)
    own.write_text(json.dumps({"ServerApp": {"port": port, "sock": "/tmp/mine.sock"}}))
    yield another, user, port


@needs_stranger
@pytest.mark.root
def test_strangers_at_the_old_port_and_at_the_web_port_get_nothing(stopped: tuple[CommandLine, str, int]) -> None:
    lab, user, port = stopped
    with stranger_at(port) as at_old_port:
        at_old_port.wait_until_it_listens()
        assert lab.up()["verified"]["ok"]
        assert {target.partition(":")[0] for target in routes(lab.paths).values()} == {"http+unix"}
        assert kernel_client.run_cell(web_door(lab, user), "print(41 + 1)").strip() == "42"
        assert at_old_port.end() == ""
    with closing(sqlite3.connect(lab.paths.hub / "hub.sqlite")) as hub:
        rows = hub.execute("select proto, port from servers").fetchall()
    assert rows == [("http+unix", 80)]
    with stranger_at(lab.web[1]) as at_web_port:
        os.kill(tasks(lab)["proxy"]["pid"], signal.SIGKILL)
        at_web_port.wait_until_it_listens()
        refused = lab.run("open", "--no-browser", check=False)
        assert refused.returncode == 1 and "nobody" in refused.stderr and "login-link" not in refused.stdout
        assert at_web_port.end() == ""
    held = {lab.paths.state.stat().st_uid}
    again = "the proxy to have its port again"
    wait_for(lambda: listening_uids(*lab.web) == held, timeout=2 * LONGEST_PAUSE, what=again)
    assert "login-link?code=" in lab.run("open", "--no-browser").stdout
