"""A clean clone, an empty home, an account without privileges: `./ailab up` and what it leaves."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import CHECKOUT, UP_SECONDS, CommandLine, free_port, plain_environment, reachable_folder
from isolation import made_account
from rooms import processes_of

from ailab.waiting import wait_for

pytestmark = [
    pytest.mark.lab,
    pytest.mark.tensorflow,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes an account, which needs root: only this account was tested"),
]


def clone(target: Path) -> None:
    """What is in the checkout and not ignored, committed or not."""
    words = ["git", "-c", f"safe.directory={CHECKOUT}", "ls-files", "-z", "-co", "--exclude-standard"]
    names = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (CHECKOUT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target / name)


@pytest.fixture(scope="module")
def theirs(tensorflow: CommandLine) -> Iterator[CommandLine]:
    """`./ailab` in a clone of the account's own; its home is empty but for that. No lab is named."""
    with reachable_folder() as folder, made_account(folder / "home") as account:
        home = folder / "home"
        clone(home / "checkout")
        subprocess.run(["chown", "-R", f"{account.pw_uid}:{account.pw_gid}", str(home)], check=True)
        # A Python for TensorFlow that the account can run: the one that was brought out of root's closed home.
        python: Path = (tensorflow.paths.current / "bin/python").resolve()
        environment = plain_environment(home, PATH=os.pathsep.join([str(python.parent), os.defpath]))
        # Its default lab is where it would be without the tests' isolation: in its own home.
        del environment["AILAB_DEFAULT_LAB"]
        become = ("setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups")
        line = CommandLine(home / "ailab", environment, home / "checkout" / "ailab", become)
        yield line
        line.bare("down", check=False, cwd=home)


def test_up_makes_a_lab_at_home_and_proves_it(theirs: CommandLine) -> None:
    name = theirs.program.owner()
    up = theirs.bare("up", "--port", str(free_port()), timeout=UP_SECONDS, cwd=theirs.program.parent)
    assert f"making one in {theirs.lab}" in up.stderr
    assert "http://127.0.0.1:" in up.stdout and "TensorFlow 2.9." in up.stdout
    assert f"  User             {name}" in up.stdout.splitlines()
    verify = theirs.bare("verify", cwd=theirs.lab / "notebooks")
    assert "TensorFlow 2.9." in verify.stdout and "[[1. 3.]\n [3. 7.]]" in verify.stdout
    running = processes_of(theirs)
    assert len(running) >= 7 and {process.username() for process in running} == {name}


def test_down_leaves_nothing_running(theirs: CommandLine) -> None:
    theirs.bare("down", cwd=theirs.lab)
    wait_for(lambda: not processes_of(theirs), timeout=5, what="the last process to be gone")
    mine = [process for process in psutil.process_iter() if process.username() == theirs.program.owner()]
    assert [process for process in mine if process.status() != psutil.STATUS_ZOMBIE] == []


def test_the_launcher_keeps_the_ailab_that_it_runs(theirs: CommandLine) -> None:
    """Somebody goes back to a checkout whose ailab was installed before three others: only the rest may go."""
    control = theirs.program.parent.parent / ".local/share/ailab/control"
    for number in range(3):
        (control / str(number)).mkdir()
    (control / "current/.source").write_text("/another/checkout")
    used = (control / "current").resolve()
    assert theirs.bare("--version", cwd="/").stdout and used.is_dir()
    assert (control / "current/.source").read_text() == str(theirs.program.parent)
