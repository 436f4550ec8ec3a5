"""The tests are kept apart from the machine: their own home, default lab and account, and root stays root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHECKOUT, plain_environment, reachable_folder

from ailab import paths
from ailab.cli import main


def test_home_machine_and_default_lab_are_the_test_s_own(tmp_path: Path) -> None:
    home = Path(os.environ["HOME"])
    assert tmp_path.parent in home.parents and Path.home() == home
    assert paths.default_lab(os.environ).parent == home == paths.MachinePaths.from_environment(os.environ).home.parent
    assert plain_environment(home)["AILAB_DEFAULT_LAB"] == os.environ["AILAB_DEFAULT_LAB"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to lose")
@pytest.mark.parametrize("name", ["setuid", "setgid", "setresuid"])
def test_the_process_of_the_tests_keeps_its_privileges(name: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="every later test"):
        getattr(os, name)(*[65534] * (3 if name == "setresuid" else 1))
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        os._exit(os.geteuid() % 256)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 65534 % 256


@pytest.mark.skipif(os.geteuid() != 0, reason="a default lab of another account is made by root")
def test_a_default_lab_of_another_account_takes_no_privileges(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What /srv/ailab does on a machine where `ailab up` has run: found as the default, it is opened as its account."""
    monkeypatch.chdir(tmp_path)
    assert main.run(["status"]) == 1, "the default lab is the test's own, which is not there"
    with reachable_folder() as lab:
        for folder in (lab, lab / ".ailab"):
            folder.mkdir(exist_ok=True)
            os.chown(folder, 65534, 65534)
        (lab / "lab.toml").touch()
        monkeypatch.setenv("AILAB_DEFAULT_LAB", str(lab))
        with pytest.raises(pytest.fail.Exception):
            main.run(["status"])
    assert os.geteuid() == 0


def test_the_default_lab_and_the_account_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert paths.default_lab({"AILAB_DEFAULT_LAB": str(tmp_path)}) == tmp_path
    expected = Path("/srv/ailab") if os.geteuid() == 0 else Path("/home/x/ailab")
    assert paths.default_lab({"HOME": "/home/x"}) == expected
    assert paths.system_account({}) == "ailab" and paths.system_account({"AILAB_ACCOUNT": "lab-2"}) == "lab-2"
    code = "import os; from ailab.paths import person; print(person())"
    variables = plain_environment(tmp_path, AILAB_ACCOUNT="lab-2", SUDO_USER="lab-2", PYTHONPATH=str(CHECKOUT / "src"))
    said = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert said.stdout == "admin\n"
