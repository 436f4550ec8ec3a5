"""Snapshots of what jobs ran: real repositories, real kills, full disks, and the code put back as it was."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ailab import i18n
from ailab.command import keep_secret
from ailab.errors import AilabError, Conflict, NotFound
from ailab.jobs import code_store, differences_text, git_state, known_digests
from ailab.jobs.code_files import Bounds, is_secret
from ailab.jobs.code_store import CodeStore, collect
from ailab.jobs.differences import Difference, diff
from ailab.jobs.fingerprints import fingerprint
from ailab.jobs.git_state import without_credentials
from ailab.jobs.known_digests import KnownDigests
from ailab.jobs.model import JobRequest
from ailab.jobs.rebuilding import materialize
from ailab.jobs.snapshots import Snapshot, Surroundings, take

SOURCE = Path(__file__).parents[2] / "src"


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


# git


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
    write(repository, {".git/info/attributes": "* filter=bad\n", ".gitattributes": "* filter=bad\n", "train.py": "22"})
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


# Without git


def test_a_folder_that_git_knows_nothing_of(store: CodeStore, project: Path) -> None:
    write(project, {".hidden/a": "", "env/pyvenv.cfg": "", "env/a.py": "", "checkpoints/c.index": "", "w.h5": ""})
    write(project, {"conda/conda-meta/history": "", "lib/__pycache__/a.pyc": "", "pic.png": b"\x89PNG"})
    one = snap(store, project)
    assert one.git is None and one.git_problem == ""
    assert paths(store, one) == ["lib/model.py", "link.py", "pic.png", "run.sh", "train.py"]
    assert left_out(one) == {
        "hidden": (".hidden/",),
        "environment": ("conda/", "env/"),
        "cache": ("lib/__pycache__/",),
        "checkpoint": ("checkpoints/", "w.h5"),
    }


def test_what_is_too_much_or_no_file(store: CodeStore, project: Path) -> None:
    os.mkfifo(project / "pipe")
    write(project, {"big.bin": b"x" * 2000, **{f"data/{number:02}.csv": "1,2\n" for number in range(20)}})
    one = snap(store, project, bounds=Bounds(file_bytes=1000, files=6))
    told = {out.why: out for out in one.left_out}
    assert told["large"].names == ("big.bin",) and told["special"].names == ("pipe",)
    assert told["many"].count == 18 and len(told["many"].names) == 5
    assert {"lib/model.py", "train.py", "run.sh", "link.py"} < set(paths(store, one))
    bytes_only = snap(store, project, bounds=Bounds(bytes=33))
    assert paths(store, bytes_only) == ["lib/model.py", "link.py", "run.sh", "train.py"]
    little = snap(store, project, bounds=Bounds(seen=3))
    assert {"data/", "lib/"} == set(left_out(little)["many"])


def test_secrets_are_left_out_and_listed(store: CodeStore, repository: Path) -> None:
    names = [".env", ".env.local", "tls.pem", "id_rsa", "id_ed25519.bak", ".aws/credentials", "secrets.yaml"]
    write(repository, {name: "hush-hush" for name in names} | {".env.example": "NAME=", "secrets.py": "import os"})
    write(repository, {"odd.txt": "-----BEGIN OPENSSH PRIVATE KEY-----\nhush-hush"})
    git(repository, "add", "-A", "-f")
    secret = keep_secret("hush-command")
    one = snap(store, repository, "run", f"--key={secret}", variables={"TOKEN": "hush-value", "A": "b"})
    assert {".env.example", "secrets.py"} < set(paths(store, one))
    told = next(out for out in one.left_out if out.why == "secret")
    assert told.count == len(names) + 1
    assert one.variables == ("A", "TOKEN") and "hush" not in json.dumps(one.to_json())
    kept = b"".join(store.read(row.content) for row in store.tree(one.code) if row.mode != "120000")
    assert b"hush-hush" not in kept


def test_a_labs_own_state_is_never_code() -> None:
    assert is_secret(".ailab/lab.db") and is_secret("labs/a/.ailab/secrets/cookie") and not is_secret("ailab.py")


def test_an_unreadable_file_is_told(store: CodeStore, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Any, *rest: Any, **more: Any) -> int:
        if path == "train.py":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    one = snap(store, project)
    assert left_out(one)["unreadable"] == ("train.py",) and "lib/model.py" in paths(store, one)


def test_no_folder(store: CodeStore, tmp_path: Path) -> None:
    write(tmp_path, {"file": ""})
    for name in ("nowhere", "file"):
        with pytest.raises(NotFound, match=name):
            snap(store, tmp_path / name)


# The store


def test_a_snapshot_is_stored_as_json(store: CodeStore, repository: Path) -> None:
    write(repository, {"data/a.csv": "1", ".env": ""})
    around = Surroundings("gen-1", "3.10.4", "f" * 64, {"numpy": "1.23.5"}, ("NVIDIA A100",))
    one = snap(store, repository, inputs=("data", "nothing"), seed=7, around=around)
    again = Snapshot.from_json(json.loads(json.dumps(one.to_json() | {"a newer field": 1})))
    assert again == one
    assert [found.how for found in one.inputs] == ["content", "none"] and one.seed == 7 and one.host and one.taken_at


def test_unchanged_files_are_not_read_again(
    store: CodeStore, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_digests, "RACY_NS", -(10**18))  # their inodes are as young as this test
    first = snap(store, repository)
    read: list[str] = []
    beneath_open = snapshots_beneath_open(monkeypatch, read)
    assert beneath_open is not None
    second = snap(store, repository)
    assert second.code == first.code and read == []
    write(repository, {"train.py": "rate = 0.3\n"})
    assert snap(store, repository).code != first.code and read == ["train.py"]
    shutil.rmtree(store.objects)
    snap(store, repository)
    assert len(read) > 4, "what is not kept any more is read again, whatever is known of it"


def snapshots_beneath_open(monkeypatch: pytest.MonkeyPatch, read: list[str]) -> Any:
    from ailab.jobs.beneath import Beneath

    real = Beneath.open

    def noted(self: Beneath, path: str) -> Any:
        read.append(path)
        return real(self, path)

    monkeypatch.setattr(Beneath, "open", noted)
    return real


def test_a_change_within_the_racy_window(store: CodeStore, repository: Path) -> None:
    """The same size, the same times, the same inode: only the age of what was read tells."""
    first = snap(store, repository)
    path = repository / "train.py"
    seen = path.stat()
    with path.open("r+b") as file:
        file.write(b"rate = 0.9\n")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert path.stat().st_size == seen.st_size
    assert snap(store, repository).code != first.code


def test_only_old_stamps_are_believed(tmp_path: Path) -> None:
    file, known = tmp_path / "f", tmp_path / "index" / "k.json"
    file.write_text("1")
    seen = file.stat()
    young = KnownDigests(known)
    young.put("f", seen, "a" * 64, read_at=seen.st_ctime_ns + known_digests.RACY_NS // 2)
    young.save()
    assert KnownDigests(known).get("f", seen) is None
    old = KnownDigests(known)
    old.put("f", seen, "a" * 64, read_at=seen.st_ctime_ns + 2 * known_digests.RACY_NS)
    old.save()
    assert KnownDigests(known).get("f", seen) == "a" * 64
    known.write_text("torn{")
    assert KnownDigests(known).get("f", seen) is None
    file.write_text("2")
    os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert old.get("f", file.stat()) is None, "the inode's time of change cannot be set back"


def test_equal_contents_are_kept_once(store: CodeStore, project: Path) -> None:
    write(project, {f"copy{number}.py": "same\n" * 1000 for number in range(5)})
    snap(store, project)
    objects = list(store.objects.glob("*/*"))
    assert len(objects) == 4 and all(path.stat().st_mode & 0o777 == 0o400 for path in objects)
    assert store.root.stat().st_mode & 0o777 == 0o700
    assert min(path.stat().st_size for path in objects if b"same" in store.read(path.parent.name + path.name)) < 200


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from ailab.jobs.code_store import Batch, CodeStore
from ailab.jobs.model import JobRequest
from ailab.jobs.snapshots import Surroundings, take
real = os.fsync
def die(descriptor):
    os.kill(os.getpid(), signal.SIGKILL)
os.fsync = die
take(CodeStore(Path(sys.argv[2])), JobRequest(("x",), sys.argv[3]), Surroundings())
"""


def test_a_kill_leaves_nothing_with_a_name(store: CodeStore, project: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", KILLED, str(SOURCE), str(store.root), str(project)]
    assert subprocess.run(words).returncode == -signal.SIGKILL
    left = list((store.root / "work").glob("*/*.new"))
    assert left and not list(store.root.glob("objects/*/*")) and not list(store.root.glob("trees/*"))
    one = snap(store, project)
    materialize(store, one.code, tmp_path / "again", tmp_path / "nowhere")
    assert contents(tmp_path / "again") == contents(project)
    past = time.time() - 2 * 86400
    for folder in (store.root / "work").iterdir():
        os.utime(folder, (past, past))
    snap(store, project)
    assert list((store.root / "work").iterdir()) == []


FULL = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from ailab.errors import AilabError
from ailab.jobs.code_store import CodeStore
from ailab.jobs.model import JobRequest
from ailab.jobs.snapshots import Surroundings, take
resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))
try:
    take(CodeStore(Path(sys.argv[2])), JobRequest(("x",), sys.argv[3]), Surroundings())
except AilabError as error:
    print(error.message)
"""


def test_a_disk_that_is_full(store: CodeStore, project: Path) -> None:
    write(project, {"noise.bin": os.urandom(200_000)})
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(SOURCE), str(store.root), str(project)],
        capture_output=True, text=True, env=os.environ | {"AILAB_LANG": "en"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "cannot be written" in done.stdout and "large" in done.stdout
    assert not list(store.root.glob("trees/*")) and list((store.root / "work").iterdir()) == []
    assert "noise.bin" in paths(store, snap(store, project))


def test_an_index_that_cannot_be_written_costs_nothing(
    store: CodeStore, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_words: Any, **_more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(known_digests, "RACY_NS", -(10**18))
    monkeypatch.setattr("ailab.files.replace", full)
    assert paths(store, snap(store, project))


def test_a_damaged_content_is_noticed(store: CodeStore, project: Path, tmp_path: Path) -> None:
    one = snap(store, project)
    row = next(row for row in store.tree(one.code) if row.path == "train.py")
    file = store.object_file(row.content)
    file.chmod(0o600)
    file.write_bytes(b"")
    with pytest.raises(AilabError, match="damaged"):
        materialize(store, one.code, tmp_path / "again", project)
    assert [path.name for path in tmp_path.iterdir() if "again" in path.name] == []
    for name in ("", "../../etc/passwd", "0" * 64):
        with pytest.raises(NotFound):
            store.tree(name)


def test_many_new_files_wait_for_the_disk_once(
    store: CodeStore, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[str] = []
    monkeypatch.setattr(code_store, "_SINGLE_WAITS", 3)
    monkeypatch.setattr(os, "sync", lambda: waits.append("all"))
    assert paths(store, snap(store, project)) and waits == ["all"]


def test_collect_takes_what_nobody_names(store: CodeStore, project: Path) -> None:
    first = snap(store, project)
    write(project, {"train.py": "rate = 0.2\n"})
    second = snap(store, project)
    nothing = collect(store, {second.code})
    assert (nothing.trees, nothing.objects) == (0, 0), "both are young"
    later = time.time() + 2 * code_store.YOUNG_SECONDS
    done = collect(store, {second.code}, now=later)
    assert (done.trees, done.objects) == (1, 1) and done.freed_bytes > 0
    assert all(store.read(row.content) is not None for row in store.tree(second.code) if row.mode != "120000")
    with pytest.raises(NotFound):
        store.tree(first.code)
    write(project, {"train.py": "rate = 0.1\n"})
    assert snap(store, project).code == first.code


def test_a_tree_that_is_used_anew_is_young_again(store: CodeStore, project: Path) -> None:
    one = snap(store, project)
    past = time.time() - 2 * code_store.YOUNG_SECONDS
    os.utime(store.tree_file(one.code), (past, past))
    snap(store, project)
    assert collect(store, ()).trees == 0


# Again


def test_a_rerun_has_the_same_folder(store: CodeStore, repository: Path, tmp_path: Path) -> None:
    write(repository, {"data/a.csv": "1", "lib/x.log": "log", ".env": "KEY=1", "lib/deep/__init__.py": ""})
    (repository / "outside").symlink_to("../elsewhere")
    (repository / "lib" / "inside.py").symlink_to("../train.py")
    before = contents(repository)
    one = snap(store, repository)
    write(repository, {"train.py": "changed\n", "added.py": "import x", "more/added.py": "", "results/r.txt": "r"})
    write(repository, {"more/weights.h5": "w"})
    again = tmp_path / "runs" / "again"
    done = materialize(store, one.code, again, repository)
    code = set(paths(store, one))
    assert {name: found for name, found in contents(again).items() if name in code - {"outside"}} == {
        name: found for name, found in before.items() if name in code - {"outside"}
    }
    assert (again / "outside").readlink() == tmp_path / "elsewhere"
    assert (again / "data/a.csv").read_text() == "1" and (again / "data").readlink() == repository / "data"
    assert (again / "lib/x.log").read_text() == "log" and (again / ".env").is_symlink()
    assert (again / "more/weights.h5").read_text() == "w"
    assert not (again / "added.py").exists() and not (again / "more/added.py").exists()
    assert not (again / ".git").exists()
    assert done.files == len(code) and done.links == 4
    assert snap(store, again).git is None


def test_a_rerun_needs_an_empty_folder(store: CodeStore, project: Path, tmp_path: Path) -> None:
    one = snap(store, project)
    again = tmp_path / "again"
    again.mkdir()
    done = materialize(store, one.code, again, tmp_path / "gone")
    assert done.links == 0 and contents(again) == contents(project)
    with pytest.raises(Conflict):
        materialize(store, one.code, again, project)
    with pytest.raises(NotFound):
        materialize(store, "a" * 64, tmp_path / "never", project)
    assert not (tmp_path / "never").exists()


# Inputs


def test_fingerprints_of_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"data/a.csv": "1", "data/b/c.csv": "22"})
    (tmp_path / "data/link").symlink_to("a.csv")
    one = fingerprint(tmp_path / "data", name="data")
    assert (one.path, one.how, one.files) == ("data", "content", 3) and len(one.digest) == 64
    age(tmp_path / "data")
    assert fingerprint(tmp_path / "data", name="data") == one, "times are no content"
    write(tmp_path, {"data/a.csv": "2"})
    assert fingerprint(tmp_path / "data", name="data").digest != one.digest
    assert fingerprint(tmp_path / "data/a.csv").bytes == 1
    assert fingerprint(tmp_path / "nothing").how == "none"
    monkeypatch.setattr("ailab.jobs.fingerprints.CONTENT_BYTES", 3)
    large = fingerprint(tmp_path / "data")
    assert large.how == "stamps"
    age(tmp_path / "data", 100)
    assert fingerprint(tmp_path / "data").digest != large.digest


def test_an_input_that_is_known_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_digests, "RACY_NS", -(10**18))
    write(tmp_path, {"a.csv": "1"})
    known = KnownDigests(tmp_path / "known.json")
    one = fingerprint(tmp_path / "a.csv", known=known)
    known.save()
    monkeypatch.setattr("hashlib.file_digest", None)
    assert fingerprint(tmp_path / "a.csv", known=KnownDigests(tmp_path / "known.json")) == one


# Differences


def found_of(store: CodeStore, a: Snapshot, b: Snapshot) -> dict[tuple[str, str], Difference]:
    return {(one.kind, one.name): one for one in diff(a, b, store).found}


def test_two_runs_compared(store: CodeStore, repository: Path) -> None:
    write(repository, {"data/a.csv": "1", "pic.bin": b"\0\1", "old.py": ""})
    around = Surroundings("gen-1", "3.10.4", "lock-1", {"numpy": "1.23", "keras": "2.9"}, ("A100", "A100"))
    words = ("python", "train.py", "--rate", "0.1", "-v", "--size=4", "x", "--shift", "-1")
    a = snap(store, repository, *words, variables={"A": "1", "B": "2"}, inputs=("data",), around=around)
    write(repository, {"data/a.csv": "2", "pic.bin": b"\0\2", "train.py": "rate = 0.2\n", "new.py": ""})
    (repository / "old.py").unlink()
    (repository / "run.sh").chmod(0o644)
    other = Surroundings("gen-2", "3.10.4", "lock-2", {"numpy": "1.24", "flax": "1"}, ("A100",))
    words = ("python", "train.py", "--rate=0.2", "--size=4", "x", "--shift", "-2")
    b = snap(store, repository, *words, variables={"A": "3", "C": "4"}, inputs=("data",), seed=3, around=other)
    found = found_of(store, a, b)
    short = {key: (one.change, one.before, one.after) for key, one in found.items() if key[0] not in ("code", "input")}
    assert short == {
        ("argument", "--rate"): ("changed", "0.1", "0.2"),
        ("argument", "--shift"): ("changed", "-1", "-2"),
        ("argument", "-v"): ("removed", "", None),
        ("seed", ""): ("added", None, "3"),
        ("variable", "B"): ("removed", "", None),
        ("variable", "C"): ("added", None, ""),
        ("environment", "generation"): ("changed", "gen-1", "gen-2"),
        ("environment", "lock"): ("changed", "lock-1", "lock-2"),
        ("package", "flax"): ("added", None, "1"),
        ("package", "keras"): ("removed", "2.9", None),
        ("package", "numpy"): ("changed", "1.23", "1.24"),
        ("gpu", "A100"): ("changed", "2", "1"),
    }
    code = {name: one for (kind, name), one in found.items() if kind == "code"}
    assert {name: one.change for name, one in code.items()} == {
        "new.py": "added", "old.py": "removed", "pic.bin": "changed", "run.sh": "changed", "train.py": "changed",
    }  # fmt: skip
    assert code["train.py"].text == "@@ -1 +1 @@\n-rate = 0.1\n+rate = 0.2"
    assert code["pic.bin"].text == "" and "100755" in str(code["run.sh"].before)
    assert found["input", "data"].change == "changed"
    json.dumps(diff(a, b, store).to_json())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_differences_fit_80_columns(store: CodeStore, repository: Path, language: str) -> None:
    write(repository, {"big.bin": b"1" * 100, "lib/model.py": "a = 1\n", "名字很长的文件" * 6 + ".py": "x"})
    a = snap(store, repository, "python", "train.py", "--name", "甲" * 50, bounds=Bounds(file_bytes=90))
    write(
        repository,
        {"lib/model.py": "a = '" + "漢字" * 60 + "\x1b[31m'\n" + "line\n" * 300, "名字很长的文件" * 6 + ".py": "y"},
    )
    b = snap(store, repository, "python", "train.py", "--name", "b" * 150, bounds=Bounds(file_bytes=5000))
    i18n.use_language(language)
    try:
        lines = differences_text.lines(diff(a, b, store))
    finally:
        i18n.use_language(None)
    assert max(differences_text._width(line) for line in lines) <= 80
    text = "\n".join(lines)
    assert "\x1b" not in text and "\\x1b[31m" in text and "b" * 60 in text
    assert any("big.bin" in line for line in lines)
    assert text.startswith("Arguments" if language == "en" else "参数")


def test_no_difference_and_code_that_is_gone(store: CodeStore, project: Path) -> None:
    a = snap(store, project)
    assert diff(a, snap(store, project), store).found == ()
    assert differences_text.lines(diff(a, a, store)) == ["No difference."]
    write(project, {"train.py": "2\n"})
    b = snap(store, project)
    collect(store, (), now=time.time() + 2 * code_store.YOUNG_SECONDS)
    assert list(found_of(store, a, b)) == [("code", "")]


def test_only_the_order_is_another(store: CodeStore, project: Path) -> None:
    a, b = snap(store, project, "x", "--a", "--b"), snap(store, project, "x", "--b", "--a")
    assert found_of(store, a, b)["argument", ""].after == "--b --a"


def test_a_long_diff_is_cut(store: CodeStore, project: Path) -> None:
    write(project, {"long.py": "".join(f"{number}\n" for number in range(300))})
    a = snap(store, project)
    write(project, {"long.py": "".join(f"{number} changed\n" for number in range(300))})
    found = found_of(store, a, snap(store, project))["code", "long.py"]
    assert len(found.text.split("\n")) == 200 and found.cut > 300
    assert re.search(r"\d+ more lines", "\n".join(differences_text.lines(diff(a, snap(store, project), store))))


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
