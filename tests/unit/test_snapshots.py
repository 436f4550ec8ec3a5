"""Snapshots of what jobs ran: what is left out, real kills, full disks, and what is collected."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import snapshot_projects as made
from snapshot_projects import contents, git, left_out, paths, snap, write

from ailab.command import keep_secret
from ailab.errors import AilabError, NotFound
from ailab.jobs import code_store, known_digests
from ailab.jobs.code_files import Bounds, is_secret
from ailab.jobs.code_store import CodeStore, collect
from ailab.jobs.known_digests import KnownDigests
from ailab.jobs.rebuilding import materialize
from ailab.jobs.snapshots import Snapshot, Surroundings
from ailab.waiting import begin

SOURCE = Path(__file__).parents[2] / "src"

home, store, project, repository = made.home, made.store, made.project, made.repository

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


def test_what_is_new_is_on_the_disk_first(store: CodeStore, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (waited.append(os.fstat(descriptor).st_ino), real(descriptor)))
    one = snap(store, project)
    named = [*store.objects.glob("*/*"), store.tree_file(one.code)]
    assert sorted(waited) == sorted(path.stat().st_ino for path in named)


def test_collect_takes_what_nobody_names(store: CodeStore, project: Path) -> None:
    first = snap(store, project)
    write(project, {"train.py": "rate = 0.2\n"})
    second = snap(store, project)
    nothing = collect(store, lambda: {second.code})
    assert (nothing.trees, nothing.objects) == (0, 0), "both are young"
    later = time.time() + 2 * code_store.YOUNG_SECONDS
    done = collect(store, lambda: {second.code}, now=later)
    assert (done.trees, done.objects) == (1, 1) and done.freed_bytes > 0
    assert all(store.read(row.content) is not None for row in store.tree(second.code) if row.mode != "120000")
    with pytest.raises(NotFound):
        store.tree(first.code)
    write(project, {"train.py": "rate = 0.1\n"})
    assert snap(store, project).code == first.code


def test_nothing_is_collected_while_a_snapshot_is_taken(store: CodeStore) -> None:
    with store.working():
        collecting = begin(lambda: collect(store, tuple))
        with pytest.raises(TimeoutError):
            collecting.result(0.2)
    assert collecting.result(10).trees == 0


def test_a_tree_that_is_used_anew_is_young_again(store: CodeStore, project: Path) -> None:
    one = snap(store, project)
    past = time.time() - 2 * code_store.YOUNG_SECONDS
    os.utime(store.tree_file(one.code), (past, past))
    snap(store, project)
    assert collect(store, tuple).trees == 0
