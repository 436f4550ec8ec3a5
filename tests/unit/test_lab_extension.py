"""Our extension of JupyterLab, run in Node among stand-ins of JupyterLab's modules; the real one: tests/scenarios."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ailab.access.workspace_config import LAB_EXTENSIONS

FOLDER = LAB_EXTENSIONS / "ailab-jobs"
STAND_INS = Path(__file__).with_name("lab_stand_ins.js")


@pytest.mark.parametrize("folder", sorted(LAB_EXTENSIONS.iterdir()), ids=lambda folder: folder.name)
def test_its_address_changes_with_what_it_is(folder: Path) -> None:
    """JupyterLab has browsers keep an extension's files for ever (static_immutable_cache)."""
    load = json.loads((folder / "package.json").read_text())["jupyterlab"]["_build"]["load"]
    name, _question, version = load.partition("?v=")
    assert version == hashlib.sha256((folder / name).read_bytes()).hexdigest()[:8]


def run(**scene: Any) -> Any:
    """What happens in a scene: the dialog answered, the portal's answers; see the stand-ins."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node: the extension was not run (apt-get install nodejs)")
    words = [node, str(STAND_INS), str(FOLDER / "static/remoteEntry.js"), json.dumps(scene)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout)


ANSWER = {"path": "notebooks/a.ipynb", "parameters": "epochs = 10\n\n  name='007' \nurl = a=b\n", "gpus": 1}
FINE = {"status": 200, "body": []}
QUEUED = {"status": 200, "body": {"job": 7, "output": "notebooks/a-job-7.ipynb"}}


def test_it_is_found_in_palette_menu_and_launcher_and_submits() -> None:
    seen = run(answer=ANSWER, portal=[FINE, QUEUED])
    assert seen["places"] == ["palette", "menu", "launcher"] and seen["form"]["path"] == "notebooks/open.ipynb"
    assert len(seen["posted"][0].pop("key")) == 32
    assert seen["posted"] == [{"path": "notebooks/a.ipynb", "gpus": 1,
                               "words": ["-p", "epochs", "10", "-r", "name", "007", "-p", "url", "a=b"]}]  # fmt: skip
    assert seen["success"] == ["Job 7 is queued. Its executed copy: notebooks/a-job-7.ipynb"] and not seen["error"]
    assert seen["saved"] == 0


def test_what_is_open_and_changed_is_saved_first() -> None:
    assert run(answer=ANSWER | {"path": "notebooks/open.ipynb"}, portal=[FINE, QUEUED])["saved"] == 1


def test_without_a_login_at_the_portal_it_gets_one() -> None:
    refused = {"status": 401, "body": {"error": {"message": "You are not logged in."}}}
    seen = run(answer=ANSWER, portal=[refused, FINE, FINE, QUEUED])
    assert seen["asked"] == ["GET", "GET", "GET", "POST"] and len(seen["success"]) == 1


def test_it_waits_for_the_portal_and_asks_for_one_job() -> None:
    away = {"status": 503}
    assert run(answer=ANSWER, portal=[away, FINE, QUEUED])["asked"] == ["GET", "GET", "POST"]
    seen = run(answer=ANSWER, portal=[FINE, away, away, QUEUED])
    assert seen["asked"] == ["GET"] + ["POST"] * 3 and len(seen["success"]) == 1 and not seen["error"]
    assert len({asked["key"] for asked in seen["posted"]}) == 1, "whose answer is lost is the same job"
    seen = run(answer=ANSWER, portal=[away] * 8)
    assert seen["asked"] == ["GET"] * 4 + ["POST"] * 4 and seen["error"] == ["The lab does not answer. (HTTP 503)"]


def test_a_refusal_is_shown_with_its_remedy() -> None:
    refused = {"status": 403, "body": {"error": {"message": "Not there.", "remedy": "Move it."}}}
    assert run(answer=ANSWER, portal=[FINE, refused])["error"] == ["Not there. Move it."]
    assert run(answer=ANSWER, portal=[FINE] + [{"status": 502}] * 4)["error"] == ["The lab does not answer. (HTTP 502)"]


def test_what_the_lab_did_not_say_is_no_queued_job() -> None:
    for body in ({"detail": "Not Found"}, [], None):
        seen = run(answer=ANSWER, portal=[FINE] + [{"status": 404, "body": body}] * 4)
        assert seen["error"] == ["The lab does not answer. (HTTP 404)"] and not seen["success"]


def test_a_line_that_sets_nothing_is_refused_here() -> None:
    seen = run(answer=ANSWER | {"parameters": "epochs"}, portal=[])
    assert "epochs" in seen["error"][0] and seen["posted"] == []


def test_nothing_happens_on_cancel_and_it_speaks_chinese() -> None:
    assert run(answer=None, portal=[])["asked"] == []
    seen = run(answer=ANSWER, portal=[FINE, QUEUED], language="zh_CN")
    assert (
        seen["success"] == ["作业 7 已排队。执行后的副本：notebooks/a-job-7.ipynb"] and seen["label"] == "作为作业运行…"
    )
