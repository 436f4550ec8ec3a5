"""The format of lab.lock: strict when read, the same bytes for the same lock when written."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from packaging.markers import InvalidMarker, Marker
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ailab.errors import UsageError
from ailab.i18n import _
from ailab.settings_file import line_of


@dataclass(frozen=True)
class Package:
    """One pin: where `marker` (PEP 508, empty: everywhere) holds, `name` is `version` and one of `hashes`."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    def pin(self) -> str:
        """The pin as a requirement, without its hashes."""
        return f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")

    def requirement(self) -> str:
        return self.pin() + "".join(f" \\\n    --hash={known}" for known in self.hashes)

    def at(self, marker: str | None) -> Package | None:
        """The same package under another marker; None under none."""
        return None if marker is None else replace(self, marker=marker)


@dataclass(frozen=True)
class Image:
    """What a container image is made on: the digest of the base image, and its apt packages, name -> version.

    `reference` is where a registry has that base, empty for one made of packages; `added` is what goes on top, name ->
    version, so that the image has the packages `asked` for.
    """

    base: str
    apt: dict[str, str]
    reference: str = ""
    asked: tuple[str, ...] = ()
    added: dict[str, str] = field(default_factory=dict)


def _marker(text: str) -> str:
    """`text`, if it is a marker: it ends up in a requirements file, where a second line would be an option."""
    if text:
        try:
            Marker(text)
        except InvalidMarker:
            raise ValueError("not a marker") from None
    return text


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LockedPackage(_Strict):
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
    version: Annotated[str, StringConstraints(pattern=r"^[0-9][A-Za-z0-9.!+_-]*$")]
    marker: Annotated[str, StringConstraints(pattern=r"^[^\r\n\x00\\#]*$"), AfterValidator(_marker)] = ""
    hashes: Annotated[list[Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]], Field(min_length=1)]

    def package(self) -> Package:
        return Package(self.name, self.version, self.marker, tuple(self.hashes))


# Debian Policy, 5.6.1 and 5.6.12; with an architecture where the name has one.
_DebianName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?$")]
_DebianVersion = Annotated[str, StringConstraints(pattern=r"^[0-9][A-Za-z0-9.+~:-]*$")]


class LockedImage(_Strict):
    base: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
    reference: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9\[\]._:/@-]*$")] = ""
    asked: list[_DebianName] = []
    apt: dict[_DebianName, _DebianVersion] = {}
    added: dict[_DebianName, _DebianVersion] = {}

    def image(self) -> Image:
        return Image(self.base, self.apt, self.reference, tuple(self.asked), self.added)


class LockFile(_Strict):
    format: int
    stack: str
    inputs: str
    asked: list[str]
    package: list[LockedPackage]
    cuda: list[LockedPackage] = []
    image: LockedImage | None = None


class BadLock(UsageError):
    """A lab.lock that cannot be read: edited, cut off, in conflict, or of a newer ailab."""

    kind = "lock"


def bad_lock(path: Path, line: int, problem: str) -> BadLock:
    place = f"{path}:{line}" if line else str(path)
    return BadLock(
        f"{place}: {problem}",
        remedy=_("Take the committed one back (git checkout -- lab.lock), or remove it and run: ailab env lock"),
    )


@lru_cache(maxsize=2)
def parse_lock(path: Path, text: str, known_format: int) -> LockFile:
    """The lock in `text`, which is `path`'s. Raises `BadLock` with the line. Kept: a command asks more than once."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(("<<<<<<< ", ">>>>>>> ")):
            raise bad_lock(path, number, _("Two changes of the lock are in conflict here."))
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line_number = int(at[1]) if at else len(text.splitlines())
        problem = _("This is not TOML: {reason}.").format(reason=re.sub(r" \(at .*\)$", "", str(error)))
        raise bad_lock(path, line_number, problem) from None
    except (RecursionError, ValueError) as error:
        raise bad_lock(path, 0, _("This is not TOML: {reason}.").format(reason=type(error).__name__)) from None
    if isinstance(document.get("format"), int) and document["format"] > known_format:
        problem = _("The lock was written by a newer ailab (format {format}).").format(format=document["format"])
        remedy = _("Update ailab: this one reads format {format}.").format(format=known_format)
        raise BadLock(f"{path}: {problem}", remedy=remedy)
    try:
        return LockFile.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise bad_lock(path, line_of(text, first["loc"]), f"{key}: {first['msg']}") from None


def render_lock(
    format_number: int,
    stack: str,
    inputs: str,
    asked: Sequence[str],
    packages: Sequence[Package],
    cuda: Sequence[Package] = (),
    image: Image | None = None,
) -> str:
    """The text of a lab.lock; `cuda` is the group of its CUDA libraries."""
    lines = [
        "# Written by ailab: commit it, do not edit it. `ailab env lock` writes it anew.",
        f"format = {format_number}",
        f"stack = {json.dumps(stack)}",
        f"inputs = {json.dumps(inputs)}",
        f"asked = {json.dumps(list(asked))}",
    ]
    if image is not None:
        lines += ["", "[image]", f"base = {json.dumps(image.base)}"]
        lines += [f"reference = {json.dumps(image.reference)}"] if image.reference else []
        lines += [f"asked = {json.dumps(list(image.asked))}"] if image.asked else []
        for table, versions in (("apt", image.apt), ("added", image.added)):
            pins = [f"{json.dumps(name)} = {json.dumps(version)}" for name, version in sorted(versions.items())]
            lines += ["", f"[image.{table}]", *pins] if pins or table == "apt" else []
    for table, package in [*(("package", one) for one in packages), *(("cuda", one) for one in cuda)]:
        lines += ["", f"[[{table}]]", f"name = {json.dumps(package.name)}", f"version = {json.dumps(package.version)}"]
        if package.marker:
            lines.append(f"marker = {json.dumps(package.marker)}")
        lines += ["hashes = [", *(f'    "{known}",' for known in package.hashes), "]"]
    return "\n".join(lines) + "\n"
