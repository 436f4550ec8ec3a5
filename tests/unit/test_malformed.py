"""500 malformed files of each kind that `env add` and `env import` read: refused in our words, nothing changed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_index import opened, small_lab

from ailab import change, stacks
from ailab.environments import importing, lock, wishes
from ailab.environments.lock import check_wish
from ailab.errors import AilabError
from ailab.settings_file import default_document, settings_from
from ailab.stacks import load_stack

FILES = 500
SETTINGS = default_document(name="lab", language="en", stack="small", port=8888).replace(
    "packages = []", 'packages = [\n  "seaborn",  # plots\n  "xgboost<3 ; python_version < \'3.12\'",\n]'
)
REQUIREMENTS = """# ours
seaborn==0.13.2 --hash=sha256:aaaa \\
    --hash=sha256:bbbb
xgboost>=2,<3 ; python_version < "3.12"
uvicorn[standard]~=0.20
base-lib==2.0
-r other.txt
-e git+https://example.org/x#egg=x
--index-url https://example.org/simple
"""
CONDA = """name: ours
channels: [conda-forge]
dependencies:
  - python=3.9
  - conda-forge::scikit-image=0.19.3=py39h1
  - lightgbm[version='>=3,<4']
  - tqdm 4.66|4.67
  - pip:
    - humanize==4.9
    - base
variables: {A: b}
"""
PIECES = ["[", "]", "[" * 3000, '"', "'", "=", "\0", "\r", "\n", "<<<<<<< HEAD\n", "#", "\\", "\ufeff", "9" * 5000,
          "- ", "{", "}", ":", "&a ", "*a", "!!python/object:os.system ", "packages = 3\n", "[environment]\n", "--",
          "-r .\n", " @ https://example.org/x", "；", "é", "\x1b[31m", "\u2028", "==", "; ", "extra == 'x'", "nan",
          "1e999"]  # fmt: skip


def malformed(good: str, seed: int) -> bytes:
    """A file that was good once: cut off, its lines shuffled, bytes or pieces of other syntax thrown in."""
    chance = random.Random(seed)
    data = good.encode()
    for _turn in range(chance.randint(1, 4)):
        at, to = sorted((chance.randint(0, len(data)), chance.randint(0, len(data))))
        match chance.randint(0, 6):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + data[to:]
            case 2:
                data = data[:at] + chance.randbytes(chance.randint(1, 8)) + data[at:]
            case 3:
                lines = data.splitlines(keepends=True)
                chance.shuffle(lines)
                data = b"".join(lines)
            case 4:
                data = data[:to] + data[at:to] + data[to:]
            case _:
                data = data[:at] + chance.choice(PIECES).encode() + data[at:]
    return data


class Reached(AilabError):
    """The files were good enough to go on with: what follows is the resolver's."""


@contextmanager
def quiet(_title: str) -> Iterator[Callable[[str], None]]:
    yield lambda _text: None


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with small_lab(tmp_path_factory.mktemp("malformed")) as (made, _index):
        yield made


def try_to_add(root: Path) -> AilabError:
    """What adding a package ends with, the resolver left out; whatever happens, no file has changed."""
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != "change.lock"}

    def edited(own: list[str], stack: stacks.Stack, _lock: lock.Lock | None) -> wishes.Edit:
        edit = wishes.add(own, ["extra"], stack)
        text = wishes.with_packages((root / "lab.toml").read_bytes().decode(), edit.packages)
        assert settings_from(root / "lab.toml", text.removeprefix("\ufeff")).environment.packages == edit.packages
        raise Reached("reached", remedy="go on")

    with pytest.raises(AilabError) as caught:
        change.change_packages(opened(root), edited, "env add extra", quiet, print)
    after = {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != "change.lock"}
    assert after == before
    return caught.value


def test_malformed_lab_tomls(root: Path) -> None:
    refused = 0
    for seed in range(FILES):
        (root / "lab.toml").write_bytes(malformed(SETTINGS, seed))
        error = try_to_add(root)
        assert error.message and error.remedy, seed
        refused += not isinstance(error, Reached)
    assert FILES / 2 < refused < FILES


def test_malformed_lab_locks(root: Path) -> None:
    shipped = Path(stacks.__file__).with_name("science.lock").read_text()
    good = "\n\n".join(shipped.split("\n\n")[:5]) + "\n"
    (root / "lab.toml").write_text(SETTINGS)
    refused = 0
    try:
        for seed in range(FILES):
            (root / "lab.lock").write_bytes(malformed(good, seed))
            error = try_to_add(root)
            assert error.message and error.remedy, seed
            refused += not isinstance(error, Reached)
    finally:
        (root / "lab.lock").unlink()
    assert FILES / 2 < refused < FILES


@pytest.mark.parametrize(("name", "good"), [("requirements.txt", REQUIREMENTS), ("environment.yml", CONDA)])
def test_malformed_files_to_import(root: Path, tmp_path: Path, name: str, good: str) -> None:
    (tmp_path / "other.txt").write_text("six\n")
    (root / "lab.toml").write_text(SETTINGS)
    file, stack, taken = tmp_path / name, load_stack("small"), 0
    for seed in range(FILES):
        file.write_bytes(malformed(good, seed))
        try:
            found = importing.within(importing.read_packages(file), stack)
        except AilabError as error:
            assert error.message and error.remedy, seed
            continue
        taken += bool(found.packages)
        for wish in found.packages:
            check_wish(wish)
        own = settings_from(root / "lab.toml", SETTINGS).environment.packages
        packages = wishes.add(own, found.packages, stack).packages
        text = wishes.with_packages(SETTINGS, packages)
        assert settings_from(root / "lab.toml", text).environment.packages == packages, seed
    assert taken > FILES / 10
