"""Finding interpreters, and bringing root's own to where an account can run them."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from ailab.environments import interpreters
from ailab.environments.uv import Uv
from ailab.errors import AilabError, UsageError
from ailab.paths import MachinePaths
from ailab.settings import MirrorsSection
from ailab.stacks import Stack, load_stack

PYENV = sorted(Path("/root/.pyenv/versions").glob("3.*/bin/python3.*[0-9]")) if os.geteuid() == 0 else []


def stack_for(*pythons: str) -> Stack:
    return load_stack("science").model_copy(update={"pythons": list(pythons)})


@pytest.fixture
def uv(tmp_path: Path) -> Uv:
    return Uv(MachinePaths(tmp_path / "machine"), MirrorsSection())


def test_this_python_is_found_on_path(uv: Uv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    real = Path(sys.base_prefix) / "bin" / f"python{minor}"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / f"python{minor}").symlink_to(real)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    found = interpreters.find(stack_for(minor), "", uv)
    assert found.minor == minor and found.program.samefile(real)


def test_a_shim_is_not_taken_for_an_interpreter(uv: Uv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shims = tmp_path / ".pyenv/shims"
    shims.mkdir(parents=True)
    (shims / "python3.77").write_text("#!/bin/sh\necho 3.77.1\necho True\n")
    (shims / "python3.77").chmod(0o755)
    monkeypatch.setenv("PATH", str(shims))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    assert list(interpreters.candidates("3.77", uv.machine.pythons, tmp_path)) == []


def test_pyenvs_pythons_are_found_from_another_home(uv: Uv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "their/.pyenv/versions/3.77.1/bin/python3.77"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setenv("PATH", str(tmp_path / "their/.pyenv/shims"))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    assert list(interpreters.candidates("3.77", uv.machine.pythons, tmp_path / "mine")) == [program]
    monkeypatch.setenv("PATH", "/nowhere")
    assert list(interpreters.candidates("3.77", uv.machine.pythons, tmp_path / "mine")) == []
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "their/.pyenv"))
    assert list(interpreters.candidates("3.77", uv.machine.pythons, tmp_path / "mine")) == [program]


def test_none_found_and_none_fetched_says_which_and_where(uv: Uv, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Uv(uv.machine, MirrorsSection(python="http://127.0.0.1:9/builds"))
    monkeypatch.setattr(Uv, "environment", lambda self, was=Uv.environment: was(self) | {"UV_HTTP_RETRIES": "0"})
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    with pytest.raises(AilabError, match="No Python for") as caught:
        interpreters.find(stack_for("3.8", "3.9"), "", nowhere)
    assert "3.8, 3.9" in caught.value.remedy and str(uv.machine.pythons) in caught.value.remedy
    assert "[mirrors] python" in caught.value.remedy


@pytest.mark.parametrize("python", ["3.7", "2", "ten", "/nonexistent/python", sys.executable])
def test_a_python_that_will_not_do_is_refused(uv: Uv, python: str) -> None:
    with pytest.raises(UsageError):
        interpreters.find(stack_for("3.8", "3.9"), python, uv)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs another account")
def test_anothers_closed_pyenv_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "closed/.pyenv"))
    monkeypatch.setenv("PATH", "/nowhere")
    child = os.fork()
    if child == 0:  # another account, in the same program: it could not enter this one's folders
        os.setuid(65534)
        try:
            os._exit(len(list(interpreters.candidates("3.77", Path("/nowhere"), Path("/nowhere")))))
        except OSError:
            os._exit(77)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    ("python", "wanted"),
    [("", True), ("3.10", True), ("3.10.13", True), ("3.1", False), ("3.9", False), ("/opt/p/bin/python3", True),
     ("/opt/q/bin/python3", False)],
)  # fmt: skip
def test_whether_an_environment_is_on_the_python_that_is_asked_for(tmp_path: Path, python: str, wanted: bool) -> None:
    assert interpreters.is_wanted(python, "3.10.13", "/opt/p/bin/python3", tmp_path) is wanted


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or not PYENV, reason="needs root and an interpreter in its closed home")
@pytest.mark.parametrize("named", [False, True], ids=["by version", "by path"])
def test_roots_interpreter_is_staged_for_the_account(uv: Uv, tmp_path: Path, named: bool) -> None:
    account = pwd.getpwnam("nobody")
    program = next(one for one in PYENV if one.name in ("python3.10", "python3.9", "python3.8"))
    minor = program.name.removeprefix("python")
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder.stat().st_mode & 0o001 == 0 and folder != Path("/tmp"):
            folder.chmod(0o711)
    uv.machine.pythons.mkdir(parents=True)
    os.chown(uv.machine.pythons, account.pw_uid, account.pw_gid)
    python = str(program) if named else ""
    copy = interpreters.stage(stack_for(minor), python, uv, account)
    assert copy is not None and copy.is_relative_to(uv.machine.pythons)
    become = ["setpriv", f"--reuid={account.pw_uid}", "--clear-groups"]
    words = [*become, copy, "-I", "-c", "import sys, ssl; print(sys.prefix)"]
    said = subprocess.run(words, capture_output=True, text=True, cwd="/", check=True).stdout.strip()
    assert Path(said) == copy.parent.parent
    assert interpreters.stage(stack_for(minor), python, uv, account) is None, "the second time there is nothing to do"
    assert interpreters.find(stack_for(minor), python, uv).program == copy


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_runs_nothing_that_another_could_have_written(uv: Uv, tmp_path: Path) -> None:
    account = pwd.getpwnam("nobody")
    trap = tmp_path / "bin" / "python3.9"
    trap.parent.mkdir()
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/$(id -u)\n")
    trap.chmod(0o755)
    os.chown(trap, account.pw_uid, account.pw_gid)
    assert interpreters.stage(stack_for("3.9"), str(trap), uv, account) is None
    assert not (tmp_path / "0").exists()
