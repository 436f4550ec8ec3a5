"""What of a git work tree a snapshot has: real repositories, in every state that they can be in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import snapshot_projects as made
from snapshot_projects import git, left_out, paths, snap, write

from ailab.jobs import git_state
from ailab.jobs.code_store import CodeStore
from ailab.jobs.git_state import without_credentials
from ailab.jobs.rebuilding import materialize

home, store, project, repository = made.home, made.store, made.project, made.repository


def test_a_clean_work_tree(store: CodeStore, repository: Path) -> None:
    git(repository, "remote", "add", "origin", "https://alice:s3cret@example.org/a/b.git?private_token=x")
    one = snap(store, repository)
    assert one.git is not None and one.git_problem == ""
    assert one.git.commit == git(repository, "rev-parse", "HEAD") and one.git.branch == "main"
    assert one.git.dirty is False and one.git.remote == "https://example.org/a/b.git"
    assert paths(store, one) == [".gitignore", "lib/model.py", "link.py", "run.sh", "train.py"]
    assert one.files == 5 and one.code_bytes == sum(len(store.read(row.content)) for row in store.tree(one.code)
                                                    if row.mode != "120000")  # fmt: skip


def test_changed_new_ignored_and_removed_files(store: CodeStore, repository: Path) -> None:
    write(repository, {"train.py": "rate = 0.2\n", "new.py": "", "data/a.csv": "1", "x.log": "", "名字 \n.py": "é"})
    (repository / "run.sh").unlink()
    one = snap(store, repository)
    assert one.git is not None and one.git.dirty is True
    assert paths(store, one) == [".gitignore", "lib/model.py", "link.py", "new.py", "train.py", "名字 \n.py"]
    assert {"data/", "x.log"} == set(left_out(one)["ignored"])


def test_a_name_that_is_no_utf8(store: CodeStore, repository: Path, tmp_path: Path) -> None:
    name = os.fsdecode("数据.py".encode("gbk"))
    write(repository, {name: "1", os.fsdecode(b"\xff.pem"): "2"})
    one = snap(store, repository)
    assert name in paths(store, one)
    json.dumps(one.to_json(), ensure_ascii=False).encode()
    materialize(store, one.code, tmp_path / "again", tmp_path / "nowhere")
    assert (tmp_path / "again" / name).read_text() == "1"


def test_a_folder_below_the_top(store: CodeStore, repository: Path) -> None:
    write(repository, {"lib/new.py": ""})
    one = snap(store, repository / "lib")
    assert paths(store, one) == ["model.py", "new.py"] and one.git is not None and one.git.commit


def test_no_commit_yet(store: CodeStore, project: Path) -> None:
    git(project, "init", "-q")
    one = snap(store, project)
    assert one.git is not None and one.git.commit == "" and one.git.branch == "main" and one.git.dirty is True
    assert paths(store, one) == ["lib/model.py", "link.py", "run.sh", "train.py"]


def test_what_programs_made_and_nobody_ignored(store: CodeStore, repository: Path) -> None:
    write(
        repository,
        {"lib/__pycache__/m.pyc": "", "venv/pyvenv.cfg": "", "venv/lib/a.py": "", "out/m.h5": "", "a.pt": ""},
    )
    write(repository, {"checkpoints/kept.py": ""})
    git(repository, "add", "checkpoints/kept.py")
    one = snap(store, repository)
    assert paths(store, one) == [".gitignore", "checkpoints/kept.py", "lib/model.py", "link.py", "run.sh", "train.py"]
    told = left_out(one)
    assert told["cache"] == ("lib/__pycache__/",) and told["environment"] == ("venv/",)
    assert told["checkpoint"] == ("a.pt", "out/m.h5")


def test_a_submodule_and_a_repository_inside(store: CodeStore, repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write(other, {"inner.py": "1\n"})
    git(other, "init", "-q")
    git(other, "add", "-A")
    git(other, "commit", "-q", "-m", "other")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "sub")
    git(repository, "commit", "-q", "-m", "with it")
    shutil.copytree(other, repository / "nested")
    one = snap(store, repository)
    assert one.git is not None
    commit = git(other, "rev-parse", "HEAD")
    assert one.git.submodules == {"sub": commit, "nested": commit}
    assert {"sub/inner.py", "nested/inner.py"} < set(paths(store, one))
    shutil.rmtree(repository / "nested")
    clean = snap(store, repository)
    assert clean.git is not None and clean.git.dirty is False
    write(repository, {"sub/inner.py": "2\n"})
    dirty = snap(store, repository)
    assert dirty.git is not None and dirty.git.dirty is True and dirty.code != clean.code
    git(repository / "sub", "commit", "-qam", "moved")
    moved = snap(store, repository)
    assert moved.git is not None and moved.git.dirty is True and moved.git.submodules["sub"] != commit


def test_a_second_work_tree_and_a_detached_head(store: CodeStore, repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "-q", "--detach", str(tmp_path / "second"))
    one = snap(store, tmp_path / "second")
    assert one.git is not None and one.git.commit and one.git.branch == "" and one.git.dirty is False
    assert "train.py" in paths(store, one)


def test_a_bare_repository_is_a_folder(store: CodeStore, repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(repository), "bare.git")
    one = snap(store, tmp_path / "bare.git")
    assert one.git is None and "HEAD" in paths(store, one)


def test_without_git(store: CodeStore, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    one = snap(store, repository)
    assert one.git is None and "git" in one.git_problem
    assert paths(store, one) == ["lib/model.py", "link.py", "run.sh", "train.py"]
    assert left_out(one)["hidden"] == (".git/", ".gitignore")


def test_a_broken_repository(store: CodeStore, repository: Path) -> None:
    (repository / ".git" / "HEAD").write_text("nonsense\n")
    one = snap(store, repository)
    assert one.git is None and one.git_problem and "train.py" in paths(store, one)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another account")
def test_a_repository_of_somebody_else(store: CodeStore, repository: Path) -> None:
    for path in (repository, *repository.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    refused = subprocess.run(["git", "-C", str(repository), "status"], capture_output=True, text=True)
    assert "dubious ownership" in refused.stderr
    one = snap(store, repository)
    assert one.git is not None and one.git.commit and one.git.dirty is False


def test_nothing_that_the_repository_names_is_run(store: CodeStore, repository: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {mark}\ncat\n")
    program.chmod(0o755)
    for name in ("core.fsmonitor", "filter.bad.clean", "filter.bad.process", "core.sshCommand", "diff.external"):
        git(repository, "config", name, str(program))
    write(repository, {".git/info/attributes": "* filter=bad\n", ".gitattributes": "* filter=bad\n"})
    # Of the same size, so that only what a filter makes of it could tell.
    write(repository, {"train.py": "rate = 0.7\n"})
    for hook in ("post-index-change", "pre-commit"):
        shutil.copy(program, repository / ".git/hooks" / hook)
    before = {path: path.stat().st_mtime_ns for path in (repository / ".git").rglob("*")}
    one = snap(store, repository)
    assert one.git is not None and one.git.dirty is True and not mark.exists()
    assert before == {path: path.stat().st_mtime_ns for path in (repository / ".git").rglob("*")}


def test_an_index_that_leads_out_of_the_folder(store: CodeStore, repository: Path, tmp_path: Path) -> None:
    write(tmp_path, {"private/password": "hidden"})
    write(repository, {"lib/password": "mine"})
    git(repository, "add", "-A")
    shutil.rmtree(repository / "lib")
    (repository / "lib").symlink_to(tmp_path / "private")
    one = snap(store, repository)
    assert "lib" in paths(store, one) and "lib/password" not in paths(store, one)
    assert all(b"hidden" not in store.read(row.content) for row in store.tree(one.code) if row.mode != "120000")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://token@github.com/a/b.git", "https://github.com/a/b.git"),
        ("https://alice:pass@host:8443/a?key=1#x", "https://host:8443/a"),
        ("ssh://git:pass@host/a.git", "ssh://git@host/a.git"),
        ("git@host:a/b.git", "git@host:a/b.git"),
        ("/srv/git/a.git", "/srv/git/a.git"),
        ("ext::sh -c 'token'", "ext::"),
    ],
)
def test_a_remote_has_no_credentials(address: str, shown: str) -> None:
    assert without_credentials(address) == shown


def test_the_index_keeps_its_own_time(repository: Path, tmp_path: Path) -> None:
    """git believes a file's stamps where they are older than the index: so our copy of it must not be younger."""
    work = tmp_path / "work"
    work.mkdir()
    for number in range(5):
        write(repository, {"train.py": f"rate = {number}.0\n"})
        git(repository, "commit", "-qam", "next")
        seen = (repository / "train.py").stat()
        with (repository / "train.py").open("r+b") as file:
            file.write(b"rate = 9")
        os.utime(repository / "train.py", ns=(seen.st_atime_ns, seen.st_mtime_ns))
        tree = git_state.look(repository, work)
        assert tree is not None and tree.git.dirty is True
