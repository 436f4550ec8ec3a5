"""A package index on loopback with hand-made wheels, a stack of two small packages, and a lab on both."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from loopback import serving_files

from ailab import stacks
from ailab.change import open_lab
from ailab.environments import lock
from ailab.lab import Lab

STACK = """
name = "small"
version = "1"
title = "Small"
pythons = ["3.12", "3.11", "3.10"]
platforms = ["x86_64", "aarch64"]
proof = "numpy"
packages = ["base"]

[[bounds]]
requirement = "base-lib<2"
reason = "base-lib 2 takes away what base calls."
"""
SETTINGS = """# our lab
[environment]
stack = "small"
packages = []  # what we want beside it

[mirrors]
pypi = "{index}"
"""


@dataclass(frozen=True)
class Index:
    """A folder of wheels, served as a simple index (PEP 503) that nobody caches."""

    folder: Path
    address: str

    def add(self, name: str, version: str, requires: Sequence[str] = ()) -> None:
        self._put(name, f"{name.replace('-', '_')}-{version}-py3-none-any.whl", wheel(name, version, requires))

    def add_source(self, name: str, version: str, backend: str) -> None:
        """A package that is only a source distribution; `backend` is the code that builds it (PEP 517)."""
        self._put(name, f"{name.replace('-', '_')}-{version}.tar.gz", source(name, version, backend))

    def _put(self, name: str, file: str, data: bytes) -> None:
        place = self.folder / "simple" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / file).write_bytes(data)
        links = (
            f'<a href="{one.name}#sha256={hashlib.sha256(one.read_bytes()).hexdigest()}">{one.name}</a>'
            for one in sorted(place.iterdir())
            if one.name != "index.html"
        )
        (place / "index.html").write_text(f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>")


def wheel(name: str, version: str, requires: Sequence[str]) -> bytes:
    """A wheel with one module; its format: https://packaging.python.org/en/latest/specifications/binary-distribution-format/"""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    files = {
        f"{module}.py": f'version = "{version}"\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return made.getvalue()


def source(name: str, version: str, backend: str) -> bytes:
    root = f"{name.replace('-', '_')}-{version}"
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "{version}"\n',
        "PKG-INFO": f"Metadata-Version: 2.2\nName: {name}\nVersion: {version}\n",
        "backend.py": backend,
    }
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"{root}/{path}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return made.getvalue()


@contextmanager
def serving_index(folder: Path) -> Iterator[Index]:
    with serving_files(folder) as address:
        yield Index(folder, f"{address}/simple")


@contextmanager
def small_lab(folder: Path) -> Iterator[tuple[Path, Index]]:
    """A lab (its folder) of the small stack, with nothing built yet, and its index."""
    with pytest.MonkeyPatch.context() as patched, serving_index(folder / "index") as index:
        index.add("base", "1.0", ["base-lib"])
        for version in ("1.0", "1.5", "2.0"):
            index.add("base-lib", version)
        (folder / "stacks").mkdir()
        (folder / "stacks/small.toml").write_text(STACK)
        patched.setattr(stacks, "FOLDER", folder / "stacks")
        patched.setenv("AILAB_HOME", str(folder / "machine"))
        root = folder / "lab"
        root.mkdir()
        (root / "lab.toml").write_text(SETTINGS.format(index=index.address))
        opened(root).make_private_folders()
        yield root, index


def opened(root: Path) -> Lab:
    """The lab as every command opens it."""
    return open_lab(root, lambda _text: None)


def disagreement(lab: Lab) -> str:
    """What does not agree among lab.toml, lab.lock and the generation in use; empty where all do."""
    known = lock.read_lock(lab.paths.lock)
    current = lab.generations.current()
    if known is None or current is None:
        return "nothing is there"
    if known.inputs != lock.inputs_of(stacks.load_stack("small"), lab.settings.environment.packages):
        return "lab.lock is not for lab.toml"
    if current.lock != known.digest():
        return "the generation is not of lab.lock"
    return "" if current.program.exists() else "the generation is not there"
