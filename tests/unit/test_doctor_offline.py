"""The doctor where nothing answers: a network that swallows everything, and none at all."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import CHECKOUT
from patients import a_lab


def surroundings(folder: Path, **more: str) -> dict[str, str]:
    """A person's environment, with a home and an AILAB_HOME of the test's own."""
    kept = {"PATH": os.environ["PATH"], "AILAB_UV": os.environ.get("AILAB_UV", "")}
    ours = {"HOME": str(folder), "AILAB_HOME": str(folder / "home"), "AILAB_DEFAULT_LAB": str(folder / "default")}
    ours |= {"PYTHONPATH": str(CHECKOUT / "src")}
    return kept | ours | {"AILAB_LANG": "en"} | more


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address that takes connections and never says a word, as a firewall or a broken proxy does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def examined(words: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """The first finding of each check. How long it may take is bench/environments.py's to say."""
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    return {check["name"]: check["findings"][0] for check in json.loads(done.stdout)["checks"]}


def test_a_network_that_swallows_everything_is_told(tmp_path: Path, black_hole: str) -> None:
    environment = surroundings(tmp_path, HTTPS_PROXY=black_hole)
    lab = a_lab(tmp_path / "lab")
    words = [sys.executable, "-m", "ailab.cli.main", "--lab", str(lab.root), "doctor", "--json"]
    found = examined(words, environment)
    assert {found[name]["severity"] for name in ("index", "npm")} == {"error"}
    assert found["permissions"]["severity"] == "ok"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="a network namespace needs root")
def test_no_network_at_all_is_told(tmp_path: Path) -> None:
    environment = surroundings(tmp_path)
    words = ["unshare", "--net", sys.executable, "-m", "ailab.cli.main", "doctor", "--json"]
    found = examined(words, environment)
    assert {found[name]["severity"] for name in ("dns", "index", "npm")} == {"error"}
    assert "pypi.org" in found["dns"]["message"] and found["clock"]["severity"] == "ok"
