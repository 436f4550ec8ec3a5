"""kill -9 of anything: the lab is ready again by itself, and kernels live on."""

from __future__ import annotations

import http.client
import os
import signal
from typing import Any

import pytest
from conftest import CommandLine
from rooms import is_ready, kernel, tasks
from web_door import web_door

from ailab.access import hub_client, kernel_client
from ailab.access.secret_files import secret
from ailab.client import UnixConnection
from ailab.waiting import wait_for

pytestmark = pytest.mark.lab
READY_AGAIN_SECONDS = 15


@pytest.mark.parametrize("victim", ["proxy", "hub", "tensorboard", "daemon", "workspace"])
def test_a_kill_is_healed_and_kernels_live_on(science: CommandLine, first_up: Any, victim: str) -> None:
    user = first_up["login"]["user"]
    science.up()
    held = kernel(science, user)
    kernel_client.execute(web_door(science, user), held, "kept = 41")
    before = tasks(science)
    if victim == "daemon":
        os.kill(int((science.paths.run / "daemon.lock").read_text()), signal.SIGKILL)
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
                return kernel_client.run_cell(web_door(science, user), "print(41 + 1)")
            return kernel_client.execute(web_door(science, user), held, "print(kept + 1)")
        except Exception:  # while the door or the workspace is on its way back
            return None

    assert wait_for(answers, timeout=READY_AGAIN_SECONDS, what="a cell").strip() == "42"


def test_a_route_that_the_proxy_has_lost_is_back_when_the_workspace_is_asked_for(
    science: CommandLine, first_up: Any
) -> None:
    user = first_up["login"]["user"]
    science.up()
    proxy = UnixConnection(science.paths.run / "proxy-api.sock", timeout=5)
    proxy.request("DELETE", f"/api/routes/user/{user}", headers=_as_the_hub(science))
    assert proxy.getresponse().status == http.client.NO_CONTENT
    hub_client.start_server(science.paths, user)
    assert kernel_client.run_cell(web_door(science, user), "print(41 + 1)").strip() == "42"


def _as_the_hub(lab: CommandLine) -> dict[str, str]:
    return {"Authorization": f"token {secret(lab.paths, 'proxy-token')}"}
