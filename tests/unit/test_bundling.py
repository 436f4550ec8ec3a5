"""The wheels that a bundle has brought: what a machine builds from them, and when it asks the index after all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_index import Index, opened, small_lab, wheel

from ailab import bundling, provision
from ailab.environments.generations import Generation
from ailab.environments.uv_errors import WrongHash
from ailab.errors import AilabError, Conflict, UsageError
from ailab.lab import Lab


@contextmanager
def quiet(_title: str) -> Iterator[Callable[[str], None]]:
    yield lambda _text: None


def built(lab: Lab, *, again: bool = False) -> Generation:
    return provision.ensure_environment(lab, quiet, print, by_hand=True, again=again)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Lab, Index]]:
    with small_lab(tmp_path) as (root, index):
        yield opened(root), index


@pytest.fixture
def cut_off(small: tuple[Lab, Index], tmp_path: Path) -> Lab:
    """A machine that has the wheels of a lab, nothing unpacked, and an index that has nothing any more."""
    lab, index = small
    assert {"base", "base-lib"} <= built(lab).packages.keys()
    lab.machine.wheels.mkdir()
    for file in index.folder.rglob("*.whl"):
        shutil.copy2(file, lab.machine.wheels)
    shutil.rmtree(index.folder / "simple")
    shutil.rmtree(lab.machine.cache / "uv")
    return lab


def test_a_lab_is_built_from_its_wheels_alone(cut_off: Lab) -> None:
    assert {"base", "base-lib"} <= built(cut_off, again=True).packages.keys()


def test_wheels_that_do_not_suffice_give_way_to_the_index(cut_off: Lab, tmp_path: Path) -> None:
    (cut_off.machine.wheels / "base-1.0-py3-none-any.whl").unlink()
    before = cut_off.generations.current()
    with pytest.raises(AilabError, match=r"does not have base|answers: 404"):
        built(cut_off, again=True)
    assert cut_off.generations.current() == before
    index = Index(tmp_path / "index", "")
    index.add("base", "1.0", ["base-lib"])
    index.add("base-lib", "1.5")
    assert "base" in built(cut_off, again=True).packages


def test_a_wheel_that_is_not_the_lock_s_is_refused_and_named(cut_off: Lab) -> None:
    (cut_off.machine.wheels / "base-1.0-py3-none-any.whl").write_bytes(wheel("base", "1.0", ["evil"]))
    with pytest.raises(WrongHash, match=r"base==1\.0") as caught:
        built(cut_off, again=True)
    assert str(cut_off.machine.wheels) in caught.value.message


def test_only_what_is_in_use_and_locked_is_packed(small: tuple[Lab, Index]) -> None:
    lab, _index = small
    first = built(lab)
    lab.paths.lock.unlink()
    with pytest.raises(Conflict, match=r"not what lab\.lock says"):
        bundling._lock_of(lab, first)


def test_a_stack_elsewhere_is_refused_and_one_in_the_lab_is_packed(small: tuple[Lab, Index], tmp_path: Path) -> None:
    lab, _index = small
    text = (tmp_path / "stacks/small.toml").read_text().replace('"small"', '"ours"')
    (tmp_path / "elsewhere.toml").write_text(text)
    settings = lab.paths.settings.read_text()
    lab.paths.settings.write_text('stacks = ["../elsewhere.toml"]\n' + settings)
    with pytest.raises(UsageError, match=r"elsewhere\.toml"):
        provision.own_stack_files(opened(lab.paths.root))
    (lab.paths.root / "stacks").mkdir()
    (lab.paths.root / "stacks/ours.toml").write_text(text)
    lab.paths.settings.write_text('stacks = ["stacks/ours.toml"]\n' + settings)
    assert provision.own_stack_files(opened(lab.paths.root))[-1] == "stacks/ours.toml"
