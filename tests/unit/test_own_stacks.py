"""A team's own stack: one file that lab.toml names, and everything works with it as with those that ship."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_index import Index, opened, serving_index

from ailab import checkup, provision
from ailab.cli import account, main
from ailab.environments import generations, interpreters, kernel, lock, verification
from ailab.environments.uv import Uv
from ailab.errors import AilabError, UsageError
from ailab.paths import LabPaths, MachinePaths, private_folder
from ailab.settings import MirrorsSection
from ailab.settings_file import SettingsError, load_settings
from ailab.stacks import FOLDER, load_stack, read_stack

OURS = """# what our team computes with
name = "ours"
version = "3"
title = "Our stack"
pythons = ["3.12", "3.11", "3.10"]
platforms = ["x86_64"]
proof = "./prove.py"
packages = [
    "base",
]

[[bounds]]
requirement = "base-lib<2"
reason = "base-lib 2 takes away what base calls."

[[bounds]]
requirement = "base-extra<2"
reason = "Nobody has tried it."
"""
SETTINGS = """stacks = ["./stacks/ours.toml"]

[environment]
stack = "ours"

[mirrors]
pypi = "{index}"
"""


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AILAB_LANG", "en")


@contextmanager
def quiet(_title: str) -> Iterator[Callable[[str], None]]:
    yield lambda _text: None


def write_ours(root: Path, text: str = OURS, proof: str = "print('{}')") -> Path:
    (root / "stacks").mkdir(exist_ok=True)
    (root / "stacks/prove.py").write_text(proof)
    file = root / "stacks/ours.toml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    return file


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Index]]:
    """A lab of two small packages, on a stack of its own."""
    monkeypatch.setenv("AILAB_HOME", str(tmp_path / "machine"))
    root = tmp_path / "lab"
    root.mkdir()
    with serving_index(tmp_path / "index") as index:
        index.add("base", "1.0", ["base-lib"])
        for version in ("1.0", "1.5", "2.0"):
            index.add("base-lib", version)
        write_ours(root)
        (root / "lab.toml").write_text(SETTINGS.format(index=index.address))
        opened(root).make_private_folders()
        yield root, index


def locked(root: Path) -> dict[str, str]:
    known, _written = provision.ensure_lock(opened(root))
    assert known.stack == "ours"
    return {package.name: package.version for package in known.packages}


def test_a_lab_is_locked_built_and_examined_on_its_own_stack(ours: tuple[Path, Index]) -> None:
    root, _index = ours
    lab = opened(root)
    made = provision.ensure_environment(lab, quiet, print)
    assert made.stack == "ours" and made.title == "Our stack" and made.packages == {"base": "1.0", "base-lib": "1.5"}
    assert Path(made.folder, "constraints.txt").read_text() == "base-lib<2\nbase-extra<2\n"
    assert provision.ensure_environment(lab, quiet, print) == made, "nothing to do the second time"
    assert provision.stack_of(lab, made) == provision.lab_stack(lab)
    facts = checkup.gather(root, os.environ)
    assert facts.packages == {"base"} and facts.architectures == ("x86_64",)
    facts.probes.settings()
    (root / "stacks/ours.toml").unlink()
    with pytest.raises(AilabError, match=r"ours\.toml"):
        checkup.gather(root, os.environ).probes.settings()


def test_a_change_of_its_file_makes_the_lock_an_old_one(ours: tuple[Path, Index]) -> None:
    root, _index = ours
    assert locked(root) == {"base": "1.0", "base-lib": "1.5"}
    before, wish = (root / "lab.lock").read_bytes(), provision.wish_of(opened(root))
    write_ours(root, OURS.replace("# what", "# all that").replace("Nobody has", "We have never"))
    locked(root)
    assert (root / "lab.lock").read_bytes() == before, "words alone are no change"
    write_ours(root, OURS.replace("base-lib<2", "base-lib<1.2"))
    assert locked(root) == {"base": "1.0", "base-lib": "1.0"}
    assert provision.wish_of(opened(root)) != wish


def test_its_own_tested_lock_is_taken_without_an_index(ours: tuple[Path, Index]) -> None:
    root, index = ours
    stack = provision.lab_stack(opened(root))
    uv = provision.uv_of(opened(root))
    tested = lock.resolve(stack, [], ["base-lib==1.0"], uv, interpreters.find(stack, "", uv).program)
    lock.write_lock(root / "stacks/ours.lock", tested)
    for name in ("base", "base-lib"):
        (index.folder / "simple" / name / "index.html").unlink()
    assert locked(root) == {"base": "1.0", "base-lib": "1.0"}


MISTAKES = [
    ('version = "3"\n', "", 0, "version", "Write it: version ="),
    ('title = "Our stack"', 'titel = "Our stack"', 4, "titel", "Did you mean title?"),
    ('name = "ours"', 'name = "Our stack"', 2, "name", "small letters"),
    ('name = "ours"', 'name = "science"', 2, "name", "a name of its own"),
    ('["3.12", ', '["3.12.1", ', 5, "pythons.0", '"3.11"'),
    ('["x86_64"]', '["amd64"]', 6, "platforms.0", "aarch64"),
    ('"./prove.py"', '"./proof.py"', 7, "proof", "numpy, tensorflow"),
    ('"./prove.py"', '"nmupy"', 7, "proof", "numpy, tensorflow"),
    ('"base"', '"base @ https://example.org/base.whl"', 8, "packages.0", "as pip names it"),
    ('"base-extra<2"', '"base-extra"', 17, "bounds.1.requirement", "which versions"),
    ('reason = "Nobody', 'raeson = "Nobody', 18, "bounds.1.raeson", "Did you mean reason?"),
    ('"Nobody has tried it."', '"A\\nB"', 18, "bounds.1.reason", "one line"),
    ("[[bounds]]", "[[bounds]", 12, "", "key = value"),
    ("[[bounds]]", '[cuda]\nversion = "12.2"\n\n[[bounds]]', 12, "cuda.driver", "Write it: driver ="),
    (
        "[[bounds]]",
        '[cuda]\nversion = "12.2"\ndriver = "5"\nlibraries = []\npackages = []\n\n[[bounds]]',
        12,
        "cuda",
        "Take it out",
    ),
]


@pytest.mark.parametrize(("there", "instead", "line", "key", "remedy"), MISTAKES)
def test_a_mistake_in_it_has_its_place_and_its_remedy(
    tmp_path: Path, there: str, instead: str, line: int, key: str, remedy: str
) -> None:
    assert there in OURS
    file = write_ours(tmp_path, OURS.replace(there, instead, 1))
    with pytest.raises(SettingsError) as caught:
        load_stack("ours", [str(file)])
    error = caught.value
    assert (error.path, error.line, error.key) == (file, line, key) and str(file) in error.message
    assert remedy in error.remedy and error.exit_code == 2


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_edits_are_a_stack_or_a_refusal(tmp_path: Path, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(OURS)))
    end = data.draw(st.integers(start, min(len(OURS), start + 40)))
    file = write_ours(tmp_path, OURS[:start] + data.draw(st.text(max_size=12)) + OURS[end:])
    try:
        assert read_stack(file).pythons
    except SettingsError as error:
        assert str(file) in error.message and error.remedy


def test_a_file_that_is_not_there_has_its_place_in_lab_toml(ours: tuple[Path, Index]) -> None:
    root, _index = ours
    (root / "stacks/ours.toml").unlink()
    with pytest.raises(SettingsError, match=r"lab\.toml:1: stacks: .*/stacks/ours\.toml: It cannot be read"):
        provision.lab_stack(opened(root))


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    first = write_ours(tmp_path)
    second = first.with_name("again.toml")
    second.write_text(OURS)
    with pytest.raises(SettingsError, match=rf"again\.toml:2: name: .*'ours' already, from {first}"):
        load_stack("science", [str(first), str(second)])


def test_it_is_listed_beside_those_that_ship(ours: tuple[Path, Index], capsys: pytest.CaptureFixture[str]) -> None:
    root, _index = ours
    assert main.run(["--lab", str(root), "env", "stacks"]) == 0
    said = capsys.readouterr().out
    assert "     Our stack; from stacks/ours.toml\n" in said and "     TensorFlow 2.9; ships with ailab\n" in said
    assert max(map(len, said.splitlines())) <= 80
    assert main.run(["--lab", str(root), "env", "stacks", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert listed["ours"] == {
        "name": "ours", "version": "3", "title": "Our stack", "pythons": ["3.12", "3.11", "3.10"],
        "platforms": ["x86_64"], "cuda": None, "shipped": False, "file": str(root / "stacks/ours.toml"),
    }  # fmt: skip
    assert listed["tensorflow-2.9"]["cuda"] == {"version": "11.8", "driver": "450.80.02", "platforms": ["x86_64"]}
    assert listed["tensorflow-2.9"]["shipped"]


PROOF = """
import json, numpy
assert numpy.zeros(2).sum() == {expected}
print("our proof ran")
print(json.dumps({{"answer": 42}}))
"""


def test_its_own_proof_runs_in_its_kernel(tmp_path: Path, own_machine: Path) -> None:
    science = FOLDER / "science.toml"
    text = science.read_text().replace('"science"', '"ours"').replace('"numpy"\npackages', '"./prove.py"\npackages')
    stack = read_stack(write_ours(tmp_path, text, PROOF.format(expected=0)))
    tested = lock.read_lock(science.with_suffix(".lock"))
    assert tested is not None
    machine, lab = MachinePaths(tmp_path / "machine"), LabPaths(tmp_path / "lab")
    for folder in lab.private_folders:
        private_folder(folder)
    uv = Uv(MachinePaths(own_machine), MirrorsSection())
    ours = replace(tested, stack="ours", inputs=lock.inputs_of(stack, []))
    python = interpreters.find(stack, "", uv)
    made, _new = generations.Generations(machine, lab).build(stack, ours, python, uv, lambda _text: None)
    document, said = kernel.verify(made, stack, lab)
    assert document["ok"] and document["answer"] == 42 and document["python"] == made.python and said == "our proof ran"
    assert verification.prove(made, stack, lab) == {"answer": 42}, "the quick proof is the whole one where it is alone"
    (tmp_path / "stacks/prove_whole.py").write_text(PROOF.format(expected=1))
    with pytest.raises(AilabError, match="proof failed") as caught:
        verification.prove(made, stack, lab)
    assert "AssertionError" in caught.value.detail
    (tmp_path / "stacks/prove_whole.py").write_text("print('all is well')")
    with pytest.raises(AilabError, match="no JSON object"):
        verification.prove(made, stack, lab)


@pytest.mark.parametrize("name", ["ours.toml", "prove.py"])
def test_a_file_that_the_lab_s_account_cannot_read_is_refused(tmp_path: Path, name: str) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "lab.toml").write_text('stacks = ["./stacks/ours.toml"]\n')
    write_ours(tmp_path)
    loaded = load_settings(tmp_path / "lab.toml")
    nobody = pwd.getpwnam("nobody")
    folder = next((one for one in tmp_path.parents if not one.stat().st_mode & 0o001), None)
    if folder is None:
        account.refuse_unreadable_stacks(loaded, nobody)
    (tmp_path / "stacks" / name).chmod(0o600)
    with pytest.raises(UsageError, match="cannot read"):
        account.refuse_unreadable_stacks(loaded, nobody)
