"""A whole lab through its command line: up, status, verify, refusals, down."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine, plain_environment, reachable_folder
from rooms import processes_of, services_and_workspaces, tasks

from ailab.waiting import wait_for

pytestmark = pytest.mark.lab
SERVICES = {"proxy", "hub", "tensorboard"}


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
    assert max(len(line) for line in science.run("status").stdout.splitlines()) <= 80


def test_up_twice_changes_nothing(science: CommandLine) -> None:
    before = services_and_workspaces(science)
    science.up()
    assert services_and_workspaces(science) == before


def test_verify_in_the_labs_kernel(science: CommandLine) -> None:
    document = science.json("verify")
    assert set(document) == {"ok", "tensorflow", "python", "gpus", "matmul", "environment", "lock"}
    assert document["ok"] and document["matmul"] == [[1.0, 3.0], [3.0, 7.0]]
    assert "[[1. 3.]\n [3. 7.]]" in science.run("verify").stdout


def test_a_bad_setting_is_refused_and_the_lab_runs_on(science: CommandLine) -> None:
    settings = science.paths.settings
    text, before = settings.read_text(), services_and_workspaces(science)
    try:
        settings.write_text(text.replace('memory = ""', 'memory = "8gg"'))
        refused = science.run("up", check=False)
        assert refused.returncode == 2
        assert f"{settings}:" in refused.stderr and "resources.memory" in refused.stderr and '"8g"' in refused.stderr
        assert "Traceback" not in refused.stderr
    finally:
        settings.write_text(text)
    assert services_and_workspaces(science) == before


def test_a_port_that_is_taken_is_named_before_anything_starts(another: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = another.run("up", "--port", str(port), check=False)
    assert refused.returncode == 1
    assert str(port) in refused.stderr and "--port" in refused.stderr and "taken by" in refused.stderr
    assert processes_of(another) == []


def test_use_and_rollback(science: CommandLine) -> None:
    listed = science.json("env", "list")
    assert [one["current"] for one in listed].count(True) == 1
    current = next(one for one in listed if one["current"])
    assert science.json("env", "use", current["id"])["id"] == current["id"]
    unknown = science.run("env", "use", "nonsense", check=False)
    assert unknown.returncode == 1 and "env list" in unknown.stderr


def test_down_stops_all_of_it_and_up_brings_the_workspace_back(science: CommandLine, first_up: Any) -> None:
    science.run("down")
    wait_for(lambda: not processes_of(science), timeout=5, what="the last process to be gone")
    assert science.json("status")["state"] == "stopped"
    assert "Nothing was running" in science.run("down").stdout
    again = science.up()
    assert again["state"] == "ready" and again["login"]["password"] is None
    assert f"workspace-{first_up['login']['user']}" in tasks(science)


def test_two_ups_at_once(science: CommandLine) -> None:
    words = [str(science.program), "--lab", str(science.lab), "up", "--json"]
    running = [
        subprocess.Popen(
            words, env=science.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
        )
        for _each in range(2)
    ]
    for process in running:
        out, _err = process.communicate(timeout=120)
        assert process.returncode == 0 and json.loads(out)["state"] == "ready"


def test_init_makes_the_lab_that_the_option_names(machine_home: Path) -> None:
    with reachable_folder() as folder:
        line = CommandLine(folder / "lab", plain_environment(os.environ["HOME"], AILAB_HOME=str(machine_home)))
        made = line.json("init")
        assert made["lab"] == str(line.lab) and (line.lab / "lab.toml").exists()


def test_usage_errors_exit_with_2(science: CommandLine) -> None:
    assert science.run("nonsense", check=False).returncode == 2
    assert science.run("init", str(science.lab.parent / "new"), "--stack", "nonsense", check=False).returncode == 2
