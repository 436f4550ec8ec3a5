"""uv against real servers that fail on loopback: each failure names the address and the key that mends it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from loopback import private_authority, serving, serving_files

from ailab.environments.uv import Uv
from ailab.environments.uv_errors import explain
from ailab.errors import AilabError, DiskFull
from ailab.paths import MachinePaths
from ailab.settings import MirrorsSection

SIX = "4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274"


@pytest.fixture(autouse=True)
def _one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """uv tries again for seconds; what it says in the end is the same."""
    monkeypatch.setattr(Uv, "environment", lambda self, was=Uv.environment: was(self) | {"UV_HTTP_RETRIES": "0"})


def sync(tmp_path: Path, index: str, pin: str = f"six==1.17.0 --hash=sha256:{SIX}") -> AilabError:
    """What installing one package from `index` ends with."""
    uv = Uv(MachinePaths(tmp_path / "home"), MirrorsSection(pypi=index))
    uv.run("venv", "--quiet", "--python", sys.executable, tmp_path / "environment")
    (tmp_path / "requirements.txt").write_text(pin + "\n")
    with pytest.raises(AilabError) as caught:
        program, wanted = tmp_path / "environment/bin/python", tmp_path / "requirements.txt"
        uv.run("pip", "sync", "--python", program, "--require-hashes", wanted)
    return caught.value


@pytest.mark.parametrize(("status", "said"), [(403, "403 Forbidden"), (500, "500 Internal Server Error")])
def test_an_index_that_refuses_is_named_with_its_answer(tmp_path: Path, status: int, said: str) -> None:
    with serving(status=status) as address:
        error = sync(tmp_path, index := f"{address}/simple")
    assert index in error.message and said in error.message
    assert "[mirrors] pypi" in error.remedy


def test_an_index_without_the_package_is_named(tmp_path: Path) -> None:
    with serving(status=404) as address:
        error = sync(tmp_path, index := f"{address}/simple")
    assert f"{index} does not have six." == error.message
    assert "[mirrors] pypi" in error.remedy


def test_nobody_listens(tmp_path: Path) -> None:
    with serving() as address:
        index = f"{address}/simple"
    error = sync(tmp_path, index)
    assert index in error.message and "refused" in error.message
    assert "[mirrors] proxy" in error.remedy


def test_a_certificate_of_an_unknown_authority(tmp_path: Path) -> None:
    with serving(certificate=private_authority(tmp_path)[0]) as address:
        error = sync(tmp_path, index := f"{address}/simple")
    assert index in error.message and "certificate" in error.message
    assert "[mirrors] ca_bundle" in error.remedy


def test_a_file_with_another_hash_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "index/simple/six"
    package.mkdir(parents=True)
    with zipfile.ZipFile(package / "six-1.17.0-py2.py3-none-any.whl", "w") as wheel:
        wheel.writestr("six.py", "print('not the six that was locked')")
        wheel.writestr("six-1.17.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: six\nVersion: 1.17.0\n")
        wheel.writestr("six-1.17.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("six-1.17.0.dist-info/RECORD", "")
    link = f'<a href="six-1.17.0-py2.py3-none-any.whl#sha256={SIX}">six-1.17.0-py2.py3-none-any.whl</a>'
    (package / "index.html").write_text(f"<!DOCTYPE html><html><body>{link}</body></html>")

    with serving_files(tmp_path / "index") as address:
        error = sync(tmp_path, f"{address}/simple")
    assert "six" in error.message
    assert "[mirrors] pypi" in error.remedy
    assert not list((tmp_path / "environment").rglob("six*"))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounts a small file system")
def test_a_full_disk_is_named_with_its_sizes(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small], check=False).returncode:
        pytest.skip("this container may not mount")
    try:
        uv = Uv(MachinePaths(small), MirrorsSection())
        (small / "rest").write_bytes(bytes(44 * 1024))
        with pytest.raises(DiskFull) as caught:
            uv.run("venv", "--quiet", "--seed", "--python", sys.executable, small / "environment", needed_mb=371)
    finally:
        subprocess.run(["umount", small], check=True)
    assert "0 MB are free" in caught.value.message and "371 MB" in caught.value.message
    assert str(small) in caught.value.message


def test_a_conflict_is_one_sentence() -> None:
    said = (
        "error: No solution found when resolving dependencies\n  cause: Because your project depends on numpy>=2\n"
        "         and tensorflow==2.9.3 depends on numpy<1.24, we can conclude that your project's requirements are\n"
        "         unsatisfiable.\n"
    )
    error = explain(said, index="PyPI", cache=Path("/"), needed_mb=1)
    assert error is not None and "Because your project depends on numpy>=2 and tensorflow" in error.message
    assert "[environment] packages" in error.remedy


def test_what_is_not_known_is_left_to_the_caller() -> None:
    assert explain("error: something new", index="PyPI", cache=Path("/"), needed_mb=1) is None
