"""A job on the lab's pages: how far it is, its curves, its output, and the button that stops it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browser import enter, needs_chromium, opened_page, shoot
from conftest import CommandLine

pytestmark = [pytest.mark.lab, pytest.mark.browser, needs_chromium]
SCRIPT = """
import time, ailab_progress
for epoch in range(1, 7):
    ailab_progress.report(epoch=epoch, epochs=10, loss=1 / epoch, accuracy=1 - 1 / (epoch + 1))
    print("epoch", epoch, flush=True)
    time.sleep(0.6)
time.sleep(600)
"""


def test_a_job_is_seen_and_stopped_on_its_page(science: CommandLine) -> None:
    science.run("up", timeout=900)
    folder: Path = science.lab / "notebooks"
    words = ("--name", "curves", "--cwd", str(folder), "--grace", "2s", "--", "python", "-c", SCRIPT)
    (job,) = json.loads(science.run("run", "--json", *words).stdout)["jobs"]
    link = science.json("open")["url"]
    with opened_page("jobs") as page:
        enter(page, link)
        page.goto(link.split("/hub/")[0] + "/services/ailab/jobs")
        page.locator("tr", has_text="curves").locator("progress").wait_for()
        shoot(page, "jobs")
        page.click("text=curves")
        page.locator("svg.curve").nth(1).wait_for()
        page.locator("pre.output", has_text="epoch 6").wait_for()
        page.locator("figcaption", has_text="loss").wait_for()
        shoot(page, "job")
        page.click("form button")
        page.locator("h2", has_text="stopped").wait_for()
        page.set_viewport_size({"width": 390, "height": 800})
        shoot(page, "job-narrow")
    assert science.json("jobs", "show", str(job))["state"] == "stopped"
