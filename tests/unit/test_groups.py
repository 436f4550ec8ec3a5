"""Tests that share something expensive run in one worker; what is in no group runs anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CONFTEST = """
import os, pathlib, pytest
pytest_plugins = ["groups", "slowest"]
@pytest.fixture(scope="session")
def science_up(): return os.getpid()
@pytest.fixture(autouse=True)
def written_down(request):
    with open(os.environ["TOLD"], "a") as told: told.write(f"{request.node.name} {os.getpid()}\\n")
"""
USES = "def test_{0}_{1}(science_up): pass\n"
SHARES = "import pytest\n@pytest.fixture(scope='module')\ndef made(): return 1\n"


def test_what_shares_a_lab_or_a_fixture_of_its_file_shares_a_worker(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for name in ("a", "b"):
        lone = "".join(f"def test_lone_{name}_{number}(): pass\n" for number in range(4))
        (tmp_path / f"test_{name}.py").write_text(lone + "".join(USES.format(name, number) for number in range(3)))
    (tmp_path / "test_c.py").write_text(SHARES + "".join(f"def test_made_{n}(made): pass\n" for n in range(4)))
    told = tmp_path / "told"
    words = [sys.executable, "-m", "pytest", "-q", "-n", "3", "--dist", "loadgroup", "--no-loadscope-reorder", "."]
    environment = os.environ | {"PYTHONPATH": str(TESTS), "TOLD": str(told)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert "the 10 slowest tests" in done.stdout and "science (6)" in done.stdout and "test_c.py (4)" in done.stdout
    ran = [line.split() for line in told.read_text().splitlines()]
    assert len(ran) == 18
    lab = [worker for name, worker in ran if name.startswith(("test_a", "test_b"))]
    made = [worker for name, worker in ran if name.startswith("test_made")]
    assert len(lab) == 6 and len(set(lab)) == 1
    assert len(made) == 4 and len(set(made)) == 1 < len({worker for _name, worker in ran})


def test_no_test_uses_two_labs_that_others_share(request: pytest.FixtureRequest) -> None:
    """It would run in the group of one and have the other made a second time."""
    labs = {"science_up", "tensorflow_up"}
    both = [item.nodeid for item in request.session.items if labs <= set(getattr(item, "fixturenames", ()))]
    assert not both, json.dumps(both)
