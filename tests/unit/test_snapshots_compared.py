"""A job's code put back as it was, its inputs known again, and two jobs compared."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import snapshot_projects as made
from snapshot_projects import age, contents, paths, snap, write

from ailab import i18n
from ailab.errors import Conflict, NotFound
from ailab.jobs import code_store, differences_text, known_digests
from ailab.jobs.code_files import Bounds
from ailab.jobs.code_store import CodeStore, collect
from ailab.jobs.differences import Difference, diff
from ailab.jobs.fingerprints import fingerprint
from ailab.jobs.known_digests import KnownDigests
from ailab.jobs.model import JobRequest
from ailab.jobs.rebuilding import materialize
from ailab.jobs.snapshots import Snapshot, Surroundings, take

home, store, project, repository = made.home, made.store, made.project, made.repository

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


def test_a_rerun_ran_the_same_code(store: CodeStore, repository: Path, tmp_path: Path) -> None:
    write(repository, {"data/a.csv": "1", "train.py": "rate = 5\n"})
    one = snap(store, repository, inputs=("data",))
    again = tmp_path / "again"
    materialize(store, one.code, again, repository)
    two = take(store, JobRequest(one.command, str(again), inputs=("data",)), Surroundings(), repeats=one)
    assert two.code == one.code and two.git == one.git and two.inputs == one.inputs
    assert [found.kind for found in diff(one, two, store).found] == ["folder"]
    gone = replace(one, code="0" * 64)
    with pytest.raises(NotFound):
        take(store, JobRequest(one.command, str(again)), Surroundings(), repeats=gone)


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
    a = snap(store, repository, *words, variables={"A": "1", "B": "2"}, inputs=("data",), around=around,
             workers=2, strategy="mirrored")  # fmt: skip
    write(repository, {"data/a.csv": "2", "pic.bin": b"\0\2", "train.py": "rate = 0.2\n", "new.py": ""})
    (repository / "old.py").unlink()
    (repository / "run.sh").chmod(0o644)
    other = Surroundings("gen-2", "3.10.4", "lock-2", {"numpy": "1.24", "flax": "1"}, ("A100",))
    words = ("python", "train.py", "--rate=0.2", "--size=4", "x", "--shift", "-2")
    b = snap(store, repository, *words, variables={"A": "3", "C": "4"}, inputs=("data",), seed=3, around=other,
             workers=3, strategy="multiworker")  # fmt: skip
    found = found_of(store, a, b)
    short = {key: (one.change, one.before, one.after) for key, one in found.items() if key[0] not in ("code", "input")}
    assert short == {
        ("argument", "--rate"): ("changed", "0.1", "0.2"),
        ("argument", "--shift"): ("changed", "-1", "-2"),
        ("argument", "-v"): ("removed", "", None),
        ("seed", ""): ("added", None, "3"),
        ("workers", ""): ("changed", "2 mirrored", "3 multiworker"),
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
    collect(store, tuple, now=time.time() + 2 * code_store.YOUNG_SECONDS)
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
