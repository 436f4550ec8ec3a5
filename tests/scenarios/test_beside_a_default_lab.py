"""`./ailab up`, then `./check`: the tests run beside the machine's default lab, and leave it alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import CHECKOUT, CommandLine

pytestmark = pytest.mark.lab
# Those that run commands in their own process, and those that need root after them.
TESTS = ("test_cli.py", "test_doctor.py", "test_mounts.py", "test_isolation.py")
# In a mount namespace of its own, where /srv has nothing else.
AS_DEFAULT = 'mount -t tmpfs none /srv && mkdir /srv/ailab && mount --bind "$0" /srv/ailab && exec "$@"'


def state(lab: CommandLine) -> Any:
    tasks = {task["id"]: (task["state"], task["pid"]) for task in lab.json("status")["tasks"]}
    files = {path.name: path.stat().st_mtime_ns for path in lab.lab.iterdir() if path.is_file()}
    return tasks, files, lab.lab.stat().st_uid


def test_the_tests_leave_a_running_default_lab_alone(science: CommandLine, tmp_path: Path) -> None:
    science.up()
    before = state(science)
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AILAB_DEFAULT_LAB")}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    words += [str(CHECKOUT / "tests/unit" / name) for name in TESTS]
    if os.geteuid() == 0:
        words = ["unshare", "--mount", "sh", "-c", AS_DEFAULT, str(science.lab), *words]
    else:
        (home / "ailab").symlink_to(science.lab)
    done = subprocess.run(
        words, env=environment | {"HOME": str(home)}, cwd=CHECKOUT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert state(science) == before
