"""`env try`: a stack really resolved, built and proven; only what passes becomes the tested lock."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ailab.cli import main
from ailab.environments import lock, trial
from ailab.errors import AilabError
from ailab.stacks import read_stack

HERE = f"3.{sys.version_info.minor}"
OURS = f"""name = "ours"
version = "1"
title = "Our stack"
pythons = ["{HERE}", "3.9"]
platforms = ["x86_64", "aarch64"]
proof = "./prove.py"
packages = ["ipykernel<7", "pip"]
"""
PASSES = 'print("fine")\nprint("{}")'
FAILS = 'raise LookupError("no such thing\\nand so on")'


@pytest.fixture(scope="module")
def machine_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root's own, where the tests run as root: in another account's, `env try` would become that account."""
    return tmp_path_factory.mktemp("machine")


@pytest.fixture
def lab(tmp_path: Path, own_machine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AILAB_LANG", "en")
    monkeypatch.setenv("AILAB_HOME", str(own_machine))
    # A machine with one Python: this one.
    (tmp_path / "bin").mkdir()
    (tmp_path / f"bin/python{HERE}").symlink_to(getattr(sys, "_base_executable", sys.executable))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "lab.toml").write_text('stacks = ["./ours.toml"]\n[environment]\nstack = "ours"\n')
    (folder / "ours.toml").write_text(OURS)
    return folder


def tried(lab: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    status = main.run(["--lab", str(lab), "env", "try", "ours", *words, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_only_what_passes_its_proof_becomes_the_tested_lock(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (lab / "prove.py").write_text(FAILS)
    status, document = tried(lab, capsys, "--python", HERE, "--write")
    assert status == 1 and not document["ok"] and not document["written"] and not (lab / "ours.lock").exists()
    assert [proof["error"] for proof in document["proofs"]] == ["LookupError: no such thing"]
    (lab / "prove.py").write_text(PASSES)
    status, document = tried(lab, capsys, "--write")
    assert status == 0 and document["ok"] and document["written"] and document["not_here"] == ["3.9"]
    assert document["proofs"][0]["python"].startswith(f"{HERE}.") and "ipykernel 6" in " ".join(document["new"])
    made = lock.read_lock(lab / "ours.lock")
    assert made is not None and made.inputs == lock.inputs_of(read_stack(lab / "ours.toml"), [])
    assert main.run(["--lab", str(lab), "env", "try", "ours", "--python", HERE]) == 0
    said = capsys.readouterr().out
    assert "Nothing has moved since it was tested." in said and f"Python {HERE}." in said and ": ok (" in said


def test_nothing_of_it_is_kept(lab: Path, own_machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (lab / "prove.py").write_text(PASSES)
    killed = own_machine / "cache/trial-99999999-x"
    killed.mkdir()
    before = sorted((own_machine / "generations").glob("ours-*"))
    assert tried(lab, capsys, "--python", HERE)[0] == 0
    assert sorted((own_machine / "generations").glob("ours-*")) == before
    assert not list((own_machine / "cache").glob("trial-*"))
    assert {path.name for path in lab.iterdir()} == {"lab.toml", "ours.toml", "prove.py"}


def test_a_python_that_is_not_its_own_or_not_here_is_refused(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (lab / "prove.py").write_text(PASSES)
    status, document = tried(lab, capsys, "--python", "3.8")
    assert status == 2 and f"{HERE}, 3.9" in document["error"]["remedy"]
    status, document = tried(lab, capsys, "--python", "3.9")
    assert status == 1 and "3.9" in document["error"]["remedy"]


def test_the_line_that_says_why_is_found() -> None:
    trace = "----\nTypeError    Traceback (most recent call last)\nCell In[1], line 1\nTypeError: it says\nmore of it\n"
    for detail, line in ((trace, "TypeError: it says"), ("a.b.NotFoundError: x\n", "a.b.NotFoundError: x"), ("?", "M")):
        assert trial.failed("3.10.1", 0.0, AilabError("M", detail=detail)).error == line
