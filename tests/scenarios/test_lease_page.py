"""Who holds what, live: on the lab's page, and in a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time

import pytest
from browser import enter, needs_chromium, opened_page, shoot
from conftest import CommandLine
from job_lines import submitted

from ailab.access import hub_client
from ailab.waiting import wait_for

pytestmark = pytest.mark.lab
BUSY = "import time\nuntil = time.monotonic() + 600\nwhile time.monotonic() < until: pass\n"


@pytest.mark.browser
@needs_chromium
def test_the_page_follows_what_is_held(science: CommandLine) -> None:
    science.run("up", timeout=900)
    found = science.json("open")
    hub_client.start_server(science.paths, found["user"])
    with opened_page("leases") as page:
        enter(page, found["url"])
        page.goto(found["url"].split("/hub/")[0] + "/services/ailab/leases")
        page.locator("td", has_text=f"workspace-{found['user']}").wait_for()
        words = ("--name", "busy", "--cpus", "1", "--memory", "1g", "--grace", "1s", "--", "python", "-c", BUSY)
        (job,) = submitted(science, "--cwd", str(science.lab / "notebooks"), *words)
        row = page.locator("tr", has_text=f"job-{job}")
        row.wait_for()
        # It computes, and the page says so without being loaded anew. How much, others on the machine decide.
        page.wait_for_function(
            "job => [...document.querySelectorAll('tr')].some(row => row.innerText.includes(job) "
            "&& /\\s([3-9]|[1-9][0-9]+) %/.test(row.innerText))",
            arg=f"job-{job}",
        )
        shoot(page, "leases")
        science.run("stop", str(job))
        row.wait_for(state="detached")
        page.goto(found["url"].split("/hub/")[0] + "/services/ailab/language/zh")
        page.goto(found["url"].split("/hub/")[0] + "/services/ailab/leases")
        page.locator("h1", has_text="谁占用了什么").wait_for()
        page.set_viewport_size({"width": 390, "height": 800})
        shoot(page, "leases-narrow")


def test_top_goes_on_until_it_is_interrupted(science: CommandLine) -> None:
    science.run("up", timeout=900)
    words = ("--cpus", "1", "--grace", "1s", "--", "python", "-c", BUSY)
    (job,) = submitted(science, "--cwd", str(science.lab / "notebooks"), *words)
    primary, secondary = pty.openpty()
    # Whoever runs the tests in the background (nohup) has interrupts ignored, and so would all that they start.
    program = ["env", "--default-signal=INT", str(science.program), "--lab", str(science.lab), "top", "--watch"]
    watching = subprocess.Popen(program, env=science.environment, stdout=secondary, stderr=secondary, stdin=secondary)
    os.close(secondary)
    try:
        _read_until(primary, f"job-{job}")
        science.run("stop", str(job))
        _read_until(primary, "Waiting  0 jobs")
        seen = {lease["task"] for lease in science.json("top")["leases"]}
        assert f"job-{job}" not in seen
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 0
    finally:
        watching.kill()
        os.close(primary)


def _read_until(terminal: int, text: str) -> None:
    shown = ""

    def look() -> bool:
        nonlocal shown
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
        return text in shown

    wait_for(look, timeout=60, what=f"{text} on the terminal")
    time.sleep(0.1)
