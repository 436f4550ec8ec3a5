"""Folders of code, with git and without, and short words to take snapshots of them and to look at those."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ailab.jobs.code_files import Bounds
from ailab.jobs.code_store import CodeStore
from ailab.jobs.model import JobRequest
from ailab.jobs.snapshots import Snapshot, Surroundings, take


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No git settings of whoever runs the tests."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / ".gitconfig").write_text("[user]\nname = t\nemail = t@example.org\n[init]\ndefaultBranch = main\n")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> CodeStore:
    return CodeStore(tmp_path / "snapshots")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder of code that git knows nothing of."""
    folder = tmp_path / "project"
    write(folder, {"train.py": "rate = 0.1\n", "lib/model.py": "layers = 2\n", "run.sh": "#!/bin/sh\n"})
    (folder / "run.sh").chmod(0o755)
    (folder / "link.py").symlink_to("train.py")
    return folder


@pytest.fixture
def repository(project: Path) -> Path:
    git(project, "init", "-q")
    write(project, {".gitignore": "data/\n*.log\n"})
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "first")
    return project


def write(folder: Path, contents: dict[str, str | bytes]) -> None:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def age(folder: Path, seconds: float = 10) -> None:
    """Make every file's times old, as if nobody had touched it for a while."""
    past = time.time() - seconds
    for path in folder.rglob("*"):
        os.utime(path, (past, past), follow_symlinks=False)


def snap(store: CodeStore, folder: Path, *command: str, bounds: Bounds | None = None, **more: Any) -> Snapshot:
    around = more.pop("around", Surroundings())
    return take(store, JobRequest(command or ("python", "train.py"), str(folder), **more), around, bounds=bounds)


def paths(store: CodeStore, snapshot: Snapshot) -> list[str]:
    return [row.path for row in store.tree(snapshot.code)]


def left_out(snapshot: Snapshot) -> dict[str, tuple[str, ...]]:
    return {one.why: one.names for one in snapshot.left_out}


def contents(folder: Path) -> dict[str, tuple[Any, ...]]:
    """All below a folder: text or link, and whether it can be run; git's own left out."""
    return {
        str(path.relative_to(folder)): ("->", str(path.readlink()))
        if path.is_symlink()
        else (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in sorted(folder.rglob("*"))
        if ".git" not in path.parts and (path.is_symlink() or path.is_file())
    }
