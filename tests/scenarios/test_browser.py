"""The lab as a person sees it: headless Chromium logs in, chooses a password, opens JupyterLab, runs a cell."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.lab,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: the pages were not opened (apt-get install chromium)"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync",
         "--disable-component-update", "--no-first-run"]  # fmt: skip
PASSWORD = "a password of mine"


def log_in(page: Any, url: str, user: str, password: str) -> None:
    page.goto(url)
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", password)
    page.click("input[type=submit], button[type=submit]")


def shoot(page: Any, name: str) -> None:
    folder = Path(os.environ.get("AILAB_SCREENSHOTS") or tempfile.gettempdir())
    page.screenshot(path=str(folder / f"ailab-{name}.png"))


def drive(lab: CommandLine, url: str, user: str, password: str, code: str, expected: str, name: str) -> None:
    """From the login page to a cell's output. The one-time password is replaced on the way."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        page.goto(url)
        shoot(page, f"{name}-login")
        log_in(page, url, user, password)
        page.wait_for_url("**/services/ailab/password")
        page.fill("input[name=new]", PASSWORD)
        page.fill("input[name=again]", PASSWORD)
        page.click("form button")
        page.wait_for_selector(".state.ready")
        shoot(page, f"{name}-portal")
        page.goto(f"{url}services/ailab/tensorboard/")
        page.wait_for_selector("tb-webapp")
        page.goto(f"{url}user/{user}/lab/tree/notebooks/welcome.ipynb")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_function("document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'")
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Control+A")
        page.keyboard.insert_text(code)
        page.keyboard.press("Shift+Enter")
        output = page.locator(".jp-OutputArea-output", has_text=expected).first
        output.wait_for()
        shoot(page, f"{name}-cell")
        browser.close()


def test_login_portal_tensorboard_and_a_cell(science: CommandLine, first_up: Any) -> None:
    login = first_up["login"]
    drive(
        science,
        first_up["url"],
        login["user"],
        login["password"],
        "print('six times seven is', 6 * 7)",
        "is 42",
        "science",
    )
    later = science.json("open")
    assert later["user"] == login["user"] and "/hub/login-link?code=" in later["url"]
