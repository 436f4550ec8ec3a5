"""Closing the browser loses no output of a running cell: the page is closed, opened again, and has all of it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser import enter, needs_chromium, opened_page, shoot
from conftest import CommandLine
from nbformat.v4 import new_code_cell, new_notebook

from ailab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.browser, needs_chromium]
LINES, BEFORE, WHILE = 12, 2, 6
# Before some lines it waits to be told to go on, by a file; another says how far it is.
CODE = f"""import pathlib, time
for line in range({LINES}):
    while line in ({BEFORE}, {WHILE}) and not pathlib.Path(f"NAME.{{line}}").exists():
        time.sleep(0.05)
    print("line", line, flush=True)
    pathlib.Path("NAME.said").write_text(str(line))
"the end\""""


@pytest.fixture
def notebook(science: CommandLine) -> Path:
    science.run("up", timeout=900)
    path: Path = science.lab / "notebooks" / f"kept-{time.monotonic_ns()}.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python"}}
    nbformat.write(
        new_notebook(cells=[new_code_cell(CODE.replace("NAME", path.stem)), new_code_cell("1 + 1")], metadata=kernel),
        path,
    )
    owner = science.lab.stat()
    os.chown(path, owner.st_uid, owner.st_gid)
    return path


def open_notebook(page: Any, lab: CommandLine, notebook: Path) -> None:
    found = lab.json("open")
    enter(page, found["url"])
    base = found["url"].partition("/hub/")[0]
    # A workspace of its own: in the shared one, the notebook of another test may be in front for a moment.
    page.goto(f"{base}/user/{found['user']}/lab/workspaces/{notebook.stem}/tree/notebooks/{notebook.name}")
    page.wait_for_selector(".jp-Notebook .jp-Cell:visible")


def cells(page: Any) -> Any:
    """Those of the notebook in front; JupyterLab opens what was open before, too."""
    return page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell")


def begin(page: Any, lab: CommandLine, notebook: Path) -> None:
    open_notebook(page, lab, notebook)
    page.locator("#jp-main-statusbar", has_text="| Idle").wait_for()
    wait_for(lambda: is_run(page), timeout=60, what="the cell to be run")
    cells(page).locator(".jp-OutputArea-output", has_text="line 1").first.wait_for()


def is_run(page: Any) -> bool:
    """Run the first cell; whether it runs. What is asked for before the notebook has its kernel JupyterLab drops."""
    from playwright.sync_api import TimeoutError as TooLong

    cells(page).first.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    try:
        cells(page).first.locator(".jp-InputPrompt", has_not_text="[ ]").wait_for(timeout=2_000)
    except TooLong:
        return False
    return True


def go_on(notebook: Path, line: int) -> None:
    notebook.with_name(f"{notebook.stem}.{line}").touch()


def wait_until_said(notebook: Path, line: int) -> None:
    said = notebook.with_name(f"{notebook.stem}.said")
    wait_for(lambda: said.exists() and said.read_text() == str(line), timeout=30, what=f"line {line}")


def saved_output(notebook: Path) -> str | None:
    """What the file has of the first cell's output; None while it is being written."""
    try:
        cell = nbformat.read(notebook, as_version=4).cells[0]
    except nbformat.reader.NotJSONError:
        return None
    return "".join(str(output.get("text", "")) + str(output.get("data", "")) for output in cell.outputs)


def test_one_that_still_runs_when_the_page_is_back(science: CommandLine, notebook: Path) -> None:
    with opened_page("kept-outputs-before") as page:
        begin(page, science, notebook)
    go_on(notebook, BEFORE)
    wait_until_said(notebook, WHILE - 1)
    with opened_page("kept-outputs") as page:
        open_notebook(page, science, notebook)
        cell = cells(page).first
        cell.locator(".jp-OutputArea-output", has_text=f"line {WHILE - 1}").first.wait_for()
        go_on(notebook, WHILE)
        shoot(page, "kept-outputs")
        cell.locator(".jp-OutputArea-output", has_text="the end").first.wait_for()
        cell.locator(".jp-InputPrompt", has_text="[1]:").wait_for()
        text = cell.locator(".jp-OutputArea").inner_text()
        assert [line for line in text.splitlines() if line.startswith("line")] == [f"line {n}" for n in range(LINES)]
        # The kernel goes on, and what is run now is shown as ever.
        cells(page).nth(1).locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")
        cells(page).nth(1).locator(".jp-OutputArea-output", has_text="2").wait_for()
    wait_for(lambda: "the end" in (saved_output(notebook) or ""), timeout=20, what="the notebook to be saved")
    assert (saved_output(notebook) or "").count("line") == LINES


def test_one_that_has_ended_meanwhile(science: CommandLine, notebook: Path) -> None:
    with opened_page("kept-outputs-before") as page:
        begin(page, science, notebook)
    for line in (BEFORE, WHILE):
        go_on(notebook, line)
    wait_until_said(notebook, LINES - 1)
    with opened_page("kept-outputs") as page:
        open_notebook(page, science, notebook)
        cells(page).locator(".jp-OutputArea-output", has_text="the end").first.wait_for()
        wait_for(lambda: "the end" in (saved_output(notebook) or ""), timeout=20, what="the notebook to be saved")
        assert (saved_output(notebook) or "").count("line") == LINES
        # Who clears it, and comes back, does not get it again.
        cells(page).first.locator(".cm-content").click()
        page.locator(".lm-MenuBar-itemLabel", has_text="Edit").click()
        page.locator(".lm-Menu-item[data-command='editmenu:clear-all']").click()
        page.keyboard.press("Control+s")
        wait_for(lambda: saved_output(notebook) == "", timeout=20, what="the cleared notebook to be saved")
    with opened_page("kept-outputs-cleared") as page:
        # What the server has kept is asked for once, when the notebook has its kernel.
        with page.expect_response(lambda answer: "/ailab/kept/" in answer.url) as asked:
            open_notebook(page, science, notebook)
        assert asked.value.json() == {}
        page.locator("#jp-main-statusbar", has_text="| Idle").wait_for()
        assert cells(page).locator(".jp-OutputArea-output").count() == 0
