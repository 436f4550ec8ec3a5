"""A whole lab through its command line: up, status, verify, kills, locks, doors, down."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import signal
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import CommandLine, free_port

from ailab.access import hub_client
from ailab.client import Client
from ailab.paths import LabPaths
from ailab.waiting import wait_for

pytestmark = pytest.mark.lab
READY_AGAIN_SECONDS = 15
SERVICES = {"proxy", "hub", "tensorboard"}


def tasks(lab: CommandLine) -> dict[str, Any]:
    return {task["id"]: task for task in lab.json("status")["tasks"]}


def processes_of(lab: CommandLine) -> list[psutil.Process]:
    """Everything that runs for the lab: the daemon, and each task with its shim."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            words = " ".join(process.info["cmdline"] or []) + " ".join(process.environ().values())
        except (psutil.Error, OSError):
            continue
        if str(lab.lab) in words and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def test_up_says_where_to_go_and_has_proven_it(first_up: Any) -> None:
    assert first_up["state"] == "ready"
    assert first_up["url"].startswith("http://127.0.0.1:")
    assert first_up["login"]["user"] and first_up["login"]["password"]
    assert first_up["verified"]["ok"] and first_up["verified"]["matmul"] == [[1.0, 3.0], [3.0, 7.0]]


def test_status_has_the_documented_shape(science: CommandLine) -> None:
    document = science.json("status")
    assert document["state"] == "ready"
    assert {"id", "stack", "python"} <= set(document["environment"])
    assert all({"name", "kind", "state", "pid", "account"} <= set(task) for task in document["tasks"])
    assert {task["name"] for task in document["tasks"]} >= SERVICES
    assert max(len(line) for line in science.run("status").stdout.splitlines()) <= 100


def test_up_twice_changes_nothing(science: CommandLine) -> None:
    before = {name: task["pid"] for name, task in tasks(science).items()}
    science.up()
    assert {name: task["pid"] for name, task in tasks(science).items()} == before


def test_verify_in_the_labs_kernel(science: CommandLine) -> None:
    document = science.json("verify")
    assert set(document) == {"ok", "tensorflow", "python", "gpus", "matmul", "environment", "lock"}
    assert document["ok"] and document["matmul"] == [[1.0, 3.0], [3.0, 7.0]]
    assert "[[1. 3.]\n [3. 7.]]" in science.run("verify").stdout


def test_nothing_of_the_lab_runs_as_root(science: CommandLine) -> None:
    running = processes_of(science)
    assert len(running) >= 7
    assert all(process.uids().real != 0 for process in running) or os.geteuid() != 0
    if os.geteuid() == 0:
        assert {task["account"] for task in tasks(science).values()} == {"ailab"}
        assert pwd.getpwuid(science.lab.stat().st_uid).pw_name == "ailab"


def test_secrets_are_closed_and_in_no_command_line(science: CommandLine) -> None:
    for folder in (science.state, science.state / "secrets", science.state / "tasks", LabPaths(science.lab).run):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    secrets = [path.read_text() for path in (science.state / "secrets").iterdir()]
    shown = " ".join(" ".join(process.cmdline()) for process in processes_of(science))
    assert secrets and not any(secret in shown for secret in secrets)


def listening(lab: CommandLine) -> list[tuple[str, int]]:
    pids = {process.pid for process in processes_of(lab)}
    return [tuple(c.laddr) for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.pid in pids]


def test_every_port_is_on_loopback_and_wants_a_login(science: CommandLine) -> None:
    port = int(science.json("status")["url"].rstrip("/").rpartition(":")[2])
    found = listening(science)
    assert (("127.0.0.1", port) in found) and {address for address, _port in found} == {"127.0.0.1"}
    user = science.up()["login"]["user"]
    inside = (f"/user/{user}/api/kernels", f"/user/{user}/api/contents", "/hub/api/users", "/services/ailab/api/status",
              "/services/ailab/tensorboard/data/runs", "/api/routes")  # fmt: skip
    for _address, at in found:
        for path in inside:
            connection = http.client.HTTPConnection("127.0.0.1", at, timeout=10)
            connection.request("GET", path)
            assert connection.getresponse().status in (302, 303, 401, 403, 404), (at, path)
            connection.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_no_other_machine_gets_an_answer_by_default(science: CommandLine) -> None:
    port = int(science.json("status")["url"].rstrip("/").rpartition(":")[2])
    make = ["ip netns add ailabtest", "ip link add ailab0 type veth peer name ailab1 netns ailabtest",
            "ip addr add 198.18.0.1/30 dev ailab0", "ip link set ailab0 up",
            "ip -n ailabtest addr add 198.18.0.2/30 dev ailab1", "ip -n ailabtest link set ailab1 up"]  # fmt: skip
    probe = f"import socket; socket.create_connection(('198.18.0.1', {port}), 3)"
    try:
        for words in make:
            subprocess.run(words.split(), check=True)
        there = ["ip", "netns", "exec", "ailabtest", "python3", "-c", probe]
        done = subprocess.run(there, capture_output=True, text=True, timeout=20)
        assert done.returncode != 0 and "Error" in done.stderr
    finally:
        subprocess.run(["ip", "netns", "del", "ailabtest"], check=False)
        subprocess.run(["ip", "link", "del", "ailab0"], check=False, capture_output=True)


def kernel(lab: CommandLine, user: str) -> str:
    paths, web = LabPaths(lab.lab), web_of(lab)
    status, answer = hub_client.web_call(paths, web, "POST", f"/user/{user}/api/kernels", {"name": "ailab"})
    assert status == http.client.CREATED
    return str(answer["id"])


def web_of(lab: CommandLine) -> tuple[str, int]:
    return "127.0.0.1", int(lab.json("status")["url"].rstrip("/").rpartition(":")[2])


def is_ready(lab: CommandLine) -> bool:
    try:
        return bool(Client(LabPaths(lab.lab).daemon_socket).get("/api/status")["state"] == "ready")
    except Exception:  # while the daemon is away, whatever the client says
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="reads the lab's sockets as root; an account's own lab is tested by hand")
@pytest.mark.parametrize("victim", ["proxy", "hub", "tensorboard", "daemon", "workspace"])
def test_a_kill_is_healed_and_kernels_live_on(science: CommandLine, first_up: Any, victim: str) -> None:
    user = first_up["login"]["user"]
    paths = LabPaths(science.lab)
    science.up()
    held = kernel(science, user)
    hub_client.execute(paths, web_of(science), user, held, "kept = 41")
    before = tasks(science)
    if victim == "daemon":
        os.kill(int((paths.run / "daemon.lock").read_text()), signal.SIGKILL)
        science.up()
    else:
        name = victim if victim != "workspace" else f"workspace-{user}"
        os.kill(before[name]["pid"], signal.SIGKILL)
        wait_for(
            lambda: is_ready(science) and tasks(science)[name]["pid"] not in (None, before[name]["pid"]),
            timeout=READY_AGAIN_SECONDS,
            what=f"the lab after the kill of {victim}",
        )

    def answers() -> str | None:
        try:
            if victim == "workspace":
                return hub_client.run_cell(paths, web_of(science), user, "print(41 + 1)")
            return hub_client.execute(paths, web_of(science), user, held, "print(kept + 1)")
        except Exception:  # while the door or the workspace is on its way back
            return None

    assert wait_for(answers, timeout=READY_AGAIN_SECONDS, what="a cell").strip() == "42"


def log_in(lab: CommandLine, user: str, password: str) -> int:
    """Log in as a browser does: fetch the form with its token, post it; the status of the answer."""
    connection = http.client.HTTPConnection(*web_of(lab), timeout=30)
    connection.request("GET", "/hub/login")
    form = connection.getresponse()
    form.read()
    cookie = "; ".join(value.split(";")[0] for name, value in form.getheaders() if name.lower() == "set-cookie")
    token = next(part.split("=", 1)[1] for part in cookie.split("; ") if part.startswith("_xsrf="))
    from urllib.parse import urlencode

    body = urlencode({"username": user, "password": password, "_xsrf": token})
    headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/hub/login", body, headers)
    return connection.getresponse().status


def test_five_wrong_passwords_lock_the_account(science: CommandLine, first_up: Any) -> None:
    user, password = first_up["login"]["user"], first_up["login"]["password"]
    for _attempt in range(5):
        assert log_in(science, user, "wrong") in (200, 403)
    assert log_in(science, user, password) == 403
    logins = [event for event in science.json("events") if event["kind"] == "login"]
    assert logins[0]["detail"]["reason"] == "locked" and "locked" in [event["after"] for event in logins]
    science.run("open", "--no-browser")
    assert log_in(science, user, password) == 302  # and now this one-time password is spent


def test_a_bad_setting_is_refused_and_the_lab_runs_on(science: CommandLine) -> None:
    settings = science.lab / "lab.toml"
    text, before = settings.read_text(), tasks(science)
    try:
        settings.write_text(text.replace('memory = ""', 'memory = "8gg"'))
        refused = science.run("up", check=False)
        assert refused.returncode == 2
        assert f"{settings}:" in refused.stderr and "resources.memory" in refused.stderr and '"8g"' in refused.stderr
        assert "Traceback" not in refused.stderr
    finally:
        settings.write_text(text)
    assert {name: task["pid"] for name, task in tasks(science).items()} == {n: t["pid"] for n, t in before.items()}


def test_a_port_that_is_taken_is_named_before_anything_starts(machine_home: Path, science: CommandLine) -> None:
    other = CommandLine(science.lab.parent / "other", machine_home, science.environment)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other.run("init", str(other.lab), "--stack", "science", "--port", str(port))
        refused = other.run("up", check=False)
    assert refused.returncode == 1
    assert str(port) in refused.stderr and "--port" in refused.stderr and "taken by" in refused.stderr
    assert processes_of(other) == []


def test_use_and_rollback(science: CommandLine) -> None:
    listed = science.json("env", "list")
    assert [one["current"] for one in listed].count(True) == 1
    current = next(one for one in listed if one["current"])
    assert science.json("env", "use", current["id"])["id"] == current["id"]
    unknown = science.run("env", "use", "nonsense", check=False)
    assert unknown.returncode == 1 and "ailab env list" in unknown.stderr


def test_down_stops_all_of_it_and_up_brings_the_workspace_back(science: CommandLine, first_up: Any) -> None:
    science.run("down")
    wait_for(lambda: not processes_of(science), timeout=5, what="the last process to be gone")
    assert science.json("status")["state"] == "stopped"
    assert "Nothing was running" in science.run("down").stdout
    again = science.up()
    assert again["state"] == "ready" and again["login"]["password"] is None
    assert f"workspace-{first_up['login']['user']}" in {task["id"] for task in again["tasks"]}


def test_two_ups_at_once(science: CommandLine) -> None:
    words = [str(Path(__file__).parents[2] / "ailab"), "--lab", str(science.lab), "up", "--json"]
    running = [
        subprocess.Popen(
            words, env=science.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
        )
        for _each in range(2)
    ]
    for process in running:
        out, _err = process.communicate(timeout=120)
        assert process.returncode == 0 and json.loads(out)["state"] == "ready"


def test_usage_errors_exit_with_2(science: CommandLine) -> None:
    assert science.run("nonsense", check=False).returncode == 2
    assert science.run("init", str(science.lab.parent / "new"), "--stack", "nonsense", check=False).returncode == 2
    assert free_port() > 0
