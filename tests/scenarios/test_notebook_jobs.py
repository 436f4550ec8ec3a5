"""Notebooks as jobs on a whole lab: from the command line, and from JupyterLab in a browser."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser import enter, needs_chromium, opened_page, shoot
from conftest import CommandLine
from job_lines import ended
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab(science: CommandLine) -> CommandLine:
    science.run("up", timeout=900)
    return science


@pytest.fixture
def folder(lab: CommandLine) -> Iterator[Path]:
    """A folder of the lab's with a notebook, both of its account."""
    owner = lab.lab.stat()
    made = lab.lab / "notebooks" / f"notebook-{time.monotonic_ns()}"
    made.mkdir()
    cells = [
        new_code_cell("import os, sys, numpy\nwidth = 1", metadata={"tags": ["parameters"]}),
        new_code_cell("print('wide', width, 'in', os.path.basename(os.getcwd()), sys.prefix)"),
        new_code_cell("numpy.ones(width).sum() / (width - 3)"),
    ]
    # Or JupyterLab asks which.
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), made / "wide.ipynb")
    for path in (made, made / "wide.ipynb"):
        os.chown(path, owner.st_uid, owner.st_gid)
    yield made


def test_from_the_command_line(lab: CommandLine, folder: Path) -> None:
    words = ("run", "--json", "--cwd", str(folder), "--env", "PYTHONPATH=/nowhere", "wide.ipynb", "-p", "width", "5")
    (job,) = json.loads(lab.run(*words).stdout)["jobs"]
    seen = ended(lab, job)
    log = lab.run("logs", str(job)).stdout
    assert seen["state"] == "done" and seen["name"] == "wide", log
    executed = nbformat.read(folder / f"wide-job-{job}.ipynb", as_version=4)
    text = executed.cells[2].outputs[0].text
    assert text.startswith(f"wide 5 in {folder.name} ") and "/generations/" in text
    assert "2.5" in executed.cells[3].outputs[0].data["text/plain"]
    assert "[3/4] print(" in log and text in log
    assert (folder / f"wide-job-{job}.ipynb").stat().st_uid == folder.stat().st_uid


def test_one_that_fails_and_words_that_cannot_be_meant(lab: CommandLine, folder: Path) -> None:
    refused = lab.run("run", "--cwd", str(folder), "wide.ipynb", "--width", "3", check=False)
    assert refused.returncode == 2 and "--width" in refused.stderr
    missing = lab.run("run", "--cwd", str(folder), "narrow.ipynb", check=False)
    assert missing.returncode == 2 and "narrow.ipynb" in missing.stderr
    done = lab.run("run", "-f", "--cwd", str(folder), "wide.ipynb", "--", "-p", "width", "nan", check=False)
    assert done.returncode == 1 and "TypeError" in done.stdout
    (copy,) = folder.glob("wide-job-*.ipynb")
    executed = nbformat.read(copy, as_version=4)
    assert executed.metadata.ailab.state == "failed" and executed.cells[3].outputs[0].output_type == "error"


def lose_the_first_answer(page: Any) -> list[int]:
    """The lab does what the page asks first, and the page is told what the proxy says of a connection that broke. What
    the lab answered goes into the list."""
    lost: list[int] = []

    def handle(route: Any) -> None:
        if lost:
            route.continue_()
            return
        lost.append(route.fetch().status)
        route.fulfill(status=503, content_type="text/html", body="<h1>Service Unavailable</h1>")

    page.route("**/api/notebook-jobs", handle)
    return lost


@needs_chromium
@pytest.mark.browser
def test_from_jupyterlab(lab: CommandLine, folder: Path) -> None:
    found = lab.json("open")
    url, user = found["url"], found["user"]
    before = max((one["id"] for one in lab.json("jobs", "--limit", "1")["jobs"]), default=0)
    with opened_page("notebook-job") as page:
        enter(page, url)
        # As somebody who has come straight to JupyterLab: without a login at the portal.
        page.context.clear_cookies(name="ailab-session")
        base = url.partition("/hub/")[0]
        page.goto(f"{base}/user/{user}/lab/tree/notebooks/{folder.name}/wide.ipynb")
        page.wait_for_selector(".jp-Notebook .jp-Cell:visible")
        page.locator("#jp-main-statusbar", has_text="| Idle").wait_for()
        page.locator(".lm-MenuBar-item").first.click()
        page.locator(".lm-Menu-item[data-command='ailab:run-as-job']").click()
        page.fill(".jp-Dialog textarea", "width = 5")
        shoot(page, "notebook-job-dialog")
        lost = lose_the_first_answer(page)
        page.locator(".jp-Dialog button.jp-mod-accept").click()
        page.locator(".Toastify__toast", has_text="wide-job-").wait_for()
    assert lost == [200]
    (newest,) = [one for one in lab.json("jobs", "--limit", "100")["jobs"] if one["id"] > before]
    assert newest["owner"] == user and newest["name"] == "wide"
    assert ended(lab, newest["id"])["state"] == "done"
    executed = nbformat.read(folder / f"wide-job-{newest['id']}.ipynb", as_version=4)
    assert executed.cells[2].outputs[0].text.startswith("wide 5 in")
