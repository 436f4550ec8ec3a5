"""What is installed in a generation, by its own records: distributions, their files and hashes, and a seal over them.

Formats: https://packaging.python.org/en/latest/specifications/recording-installed-packages/
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

_SEAL = "seal.json"
# What we write beside the packages, and what makes a folder a virtual environment.
OWN_FILES = ("requirements.txt", "constraints.txt", "pip.conf", "pyvenv.cfg")
# Paths, one a line, of what we put beside the packages later on: no surprise, but missed when they go.
ADDED = "added.txt"
# In a .dist-info: how a package came there, which is not what it is.
_ABOUT_THE_INSTALLER = ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")


@dataclass(frozen=True)
class Recorded:
    """One line of a RECORD: a path relative to site-packages, `algorithm=digest` (empty: not hashed) and bytes."""

    path: str
    digest: str
    size: int


@dataclass(frozen=True)
class Distribution:
    """An installed package: its normalised name, its version, and its .dist-info folder."""

    name: str
    version: str
    info: Path

    def files(self) -> Iterator[Recorded]:
        """What it installed, by its RECORD. Raises OSError when there is none, ValueError when it cannot be read."""
        with (self.info / "RECORD").open(newline="", encoding="utf-8") as lines:
            try:
                for path, digest, size in csv.reader(lines):
                    yield Recorded(path, digest, int(size or 0))
            except csv.Error as error:
                raise ValueError(str(error)) from None

    def size_bytes(self) -> int:
        """Of its files as it came; 0 when there is no RECORD that can be read."""
        try:
            return sum(one.size for one in self.files())
        except (OSError, ValueError):
            return 0

    def content(self) -> str:
        """A short digest of its files, the same wherever and by whatever tool the same wheel is installed.

        Scripts are left out, since their first line names the place, and so is what tells of the installer. Empty when
        there is no RECORD that can be read.
        """
        try:
            lines = sorted(f"{one.path},{one.digest}" for one in self.files() if one.digest and self._is_content(one))
        except (OSError, ValueError):
            return ""
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def _is_content(self, one: Recorded) -> bool:
        folder, _slash, name = one.path.rpartition("/")
        return not one.path.startswith("..") and not (folder == self.info.name and name in _ABOUT_THE_INSTALLER)


def site_packages(folder: Path | str) -> Path:
    """Where the environment at `folder` keeps its packages; a folder that is not there, where it keeps none."""
    return next(Path(folder, "lib").glob("python*/site-packages"), Path(folder, "lib", "site-packages"))


def distributions(site: Path) -> tuple[Distribution, ...]:
    """What is installed, by name; a package that is there twice is named twice."""
    found = []
    for info in site.glob("*.dist-info"):
        name, _dash, version = info.name.removesuffix(".dist-info").partition("-")
        found.append(Distribution(canonicalize_name(name), version, info))
    return tuple(sorted(found, key=lambda one: (one.name, one.version)))


@dataclass(frozen=True)
class Seal:
    """What a generation was when it was complete: each package's content, and the digests of our own files."""

    contents: dict[str, str]
    own: dict[str, str]


def seal(folder: Path) -> None:
    """Note what has been built, so that a package that something else puts in its place later is noticed."""
    contents = {f"{one.name} {one.version}": one.content() for one in distributions(site_packages(folder))}
    own = {name: digest_of(folder / name) for name in OWN_FILES if (folder / name).is_file()}
    (folder / _SEAL).write_text(json.dumps({"contents": contents, "own": own}), encoding="utf-8")


def read_seal(folder: Path | str) -> Seal:
    """The seal of a generation; an empty one where it has none, as when an older ailab built it."""
    try:
        document = json.loads(Path(folder, _SEAL).read_text(encoding="utf-8"))
        return Seal(document["contents"], document["own"])
    except (OSError, ValueError, TypeError, KeyError):
        return Seal({}, {})


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def added(generation: Path) -> set[Path]:
    """What `note_added` was told of, absolute."""
    try:
        return {generation / line for line in (generation / ADDED).read_text(encoding="utf-8").splitlines() if line}
    except OSError:
        return set()


def note_added(generation: Path, paths: list[Path]) -> None:
    """Note `paths`, files and links of ours below `generation`, as belonging there."""
    known = added(generation) | set(paths)
    lines = sorted(f"{path.relative_to(generation)}\n" for path in known)
    (generation / ADDED).write_text("".join(lines), encoding="utf-8")
