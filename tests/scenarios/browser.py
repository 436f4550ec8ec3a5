"""A person at a browser: headless Chromium logs in, chooses a password, opens JupyterLab and runs a cell."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: the pages were not opened (apt-get install chromium)"
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync",
         "--disable-component-update", "--no-first-run"]  # fmt: skip
PASSWORD = "a password of mine"


def log_in(page: Any, url: str, user: str, password: str) -> None:
    page.goto(url)
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", password)
    page.click("input[type=submit], button[type=submit]")


def enter(page: Any, link: str) -> None:
    """Follow a login link; who has no password of their own yet chooses one."""
    page.goto(link)
    page.wait_for_selector("header nav a")
    if page.url.endswith("/services/ailab/password"):
        choose_password(page)


def choose_password(page: Any) -> None:
    page.fill("input[name=new]", PASSWORD)
    page.fill("input[name=again]", PASSWORD)
    page.click("form button")
    page.wait_for_selector(".state")


def shoot(page: Any, name: str) -> None:
    folder = Path(os.environ.get("AILAB_SCREENSHOTS") or tempfile.gettempdir())
    page.screenshot(path=str(folder / f"ailab-{name}.png"))


@contextmanager
def opened_page(name: str) -> Iterator[Any]:
    """A fresh page of a fresh browser; when a test fails on it, what it showed lies among the screenshots."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        try:
            yield page
        except BaseException:
            shoot(page, f"{name}-failed")
            raise
        finally:
            browser.close()


def first_visit(url: str, user: str, password: str, code: str, expected: str, name: str) -> None:
    """From the login page to a cell's output. The one-time password is replaced on the way."""
    with opened_page(name) as page:
        page.goto(url)
        shoot(page, f"{name}-login")
        log_in(page, url, user, "not the password")
        page.wait_for_selector("[role=alert]")
        log_in(page, url, user, password)
        page.wait_for_url("**/services/ailab/password")
        page.fill("input[name=new]", PASSWORD)
        page.fill("input[name=again]", PASSWORD)
        page.click("form button")
        page.wait_for_selector(".state.ready")
        shoot(page, f"{name}-portal")
        page.goto(f"{url}services/ailab/tensorboard/")
        page.wait_for_selector("tb-webapp")
        run_first_cell(page, f"{url}user/{user}/lab/tree/notebooks/welcome.ipynb", code, expected)
        shoot(page, f"{name}-cell")


def run_first_cell(page: Any, address: str, code: str, expected: str) -> None:
    """Replace the first cell of a notebook by `code`, run it, and wait for what it shows."""
    page.goto(address)
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    # JupyterLab drops a cell that is run before its kernel is there; the status bar says when it is.
    page.locator("#jp-main-statusbar", has_text="| Idle").wait_for()
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(code)
    page.keyboard.press("Shift+Enter")
    page.locator(".jp-OutputArea-output", has_text=expected).first.wait_for()
