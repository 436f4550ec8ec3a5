"""A lock is the same whichever index it was made on: the small one of the tests, and pypiserver with the same files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from loopback import package_server
from small_index import opened, small_lab

from ailab.errors import AilabError
from ailab.provision import ensure_environment, ensure_lock


def locked(root: Path) -> bytes:
    (root / "lab.lock").unlink(missing_ok=True)
    assert ensure_lock(opened(root))[1]
    return (root / "lab.lock").read_bytes()


@contextmanager
def moved_to(root: Path, files: Path, index: Path, *, hashes: str) -> Iterator[str]:
    """The lab at `root` set to a pypiserver with the wheels of `index`; its address."""
    files.mkdir()
    for file in index.rglob("*.whl"):
        shutil.copy2(file, files)
    settings = (root / "lab.toml").read_text()
    address_before = opened(root).settings.mirrors.pypi
    with package_server(files, hashes=hashes) as address:
        (root / "lab.toml").write_text(settings.replace(address_before, address))
        yield address


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A lab that asks for a package of its own, and the folder of its index."""
    with small_lab(tmp_path) as (root, index):
        index.add("more", "3.1", ["base"])
        settings = (root / "lab.toml").read_text()
        (root / "lab.toml").write_text(settings.replace("packages = []", 'packages = ["more"]'))
        yield root, index.folder


def test_the_same_bytes_from_another_index(lab: tuple[Path, Path], tmp_path: Path) -> None:
    root, index = lab
    first = locked(root)
    with moved_to(root, tmp_path / "files", index, hashes="sha256"):
        assert locked(root) == first


@pytest.mark.parametrize("hashes", ["md5", ""])
def test_an_index_that_vouches_for_nothing_locks_nothing_and_serves_a_lock(
    lab: tuple[Path, Path], tmp_path: Path, hashes: str
) -> None:
    root, index = lab
    first = locked(root)
    with moved_to(root, tmp_path / "files", index, hashes=hashes) as address:
        with pytest.raises(AilabError, match="SHA-256") as refused:
            locked(root)
        assert address in refused.value.message and "more==3.1" in refused.value.message
        assert not (root / "lab.lock").exists()
        (root / "lab.lock").write_bytes(first)
        lab_there = opened(root)
        made = ensure_environment(lab_there, silent, lambda _text: None)
    assert made.packages == {"base": "1.0", "base-lib": "1.5", "more": "3.1"}
    assert (root / "lab.lock").read_bytes() == first


@contextmanager
def silent(_title: str) -> Iterator[object]:
    yield lambda _text: None
