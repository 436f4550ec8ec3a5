"""lab.lock: every package of an environment by version and hash, for every Python and platform, and no address."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ailab.environments.uv import Uv
from ailab.errors import AilabError, UsageError
from ailab.i18n import _
from ailab.stacks import Stack

FORMAT = 1
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+?)(?:\s*;\s*(.+?))?(?:\s*\\)?$")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Package:
    """One pin: where `marker` (PEP 508, empty: everywhere) holds, `name` is `version` and one of `hashes`."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    def requirement(self) -> str:
        where = f" ; {self.marker}" if self.marker else ""
        return f"{self.name}=={self.version}{where}" + "".join(f" \\\n    --hash={known}" for known in self.hashes)


@dataclass(frozen=True)
class Lock:
    """A whole lock. `inputs` is the digest of what was asked for, so that a changed wish is noticed."""

    stack: str
    inputs: str
    asked: tuple[str, ...]
    packages: tuple[Package, ...]

    def requirements(self) -> str:
        """The lock as a requirements file with hashes, as pip and uv read it."""
        return "\n".join(package.requirement() for package in self.packages) + "\n"

    def digest(self) -> str:
        return hashlib.sha256(self.requirements().encode()).hexdigest()

    def text(self) -> str:
        lines = [
            "# Written by ailab: commit it, do not edit it. `ailab env lock` writes it anew.",
            f"format = {FORMAT}",
            f"stack = {json.dumps(self.stack)}",
            f"inputs = {json.dumps(self.inputs)}",
            f"asked = {json.dumps(list(self.asked))}",
        ]
        for package in self.packages:
            lines += ["", "[[package]]", f"name = {json.dumps(package.name)}", f"version = {json.dumps(package.version)}"]
            if package.marker:
                lines.append(f"marker = {json.dumps(package.marker)}")
            lines += ["hashes = [", *(f'    "{known}",' for known in package.hashes), "]"]
        return "\n".join(lines) + "\n"


def inputs_of(stack: Stack, asked: list[str]) -> str:
    """The digest of everything that a resolution depends on, but for the registry's own state."""
    wish = [FORMAT, stack.name, stack.packages, stack.constraints, stack.pythons, stack.platforms, sorted(asked)]
    return hashlib.sha256(json.dumps(wish).encode()).hexdigest()[:16]


def read_lock(path: Path) -> Lock | None:
    """The lock at `path`; None when there is none. Raises `UsageError` for one that cannot be read."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        packages = tuple(
            Package(entry["name"], entry["version"], entry.get("marker", ""), tuple(entry["hashes"]))
            for entry in document["package"]
        )
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']}")
        return Lock(document["stack"], document["inputs"], tuple(document["asked"]), packages)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UsageError(
            _("{path} cannot be read: {reason}.").format(path=path, reason=error),
            remedy=_("Take the committed one back, or remove it and run: ailab env lock"),
        ) from None


def ensure_lock(path: Path, stack: Stack, asked: list[str], uv: Uv, interpreter: Path) -> tuple[Lock, bool]:
    """The lock for a stack and the packages asked for, and whether it had to be written.

    One that was made for the same wish is left untouched; a lab without packages of its own gets the stack's tested
    lock; else the packages are resolved around the tested versions, and freely only when that cannot be.
    """
    inputs = inputs_of(stack, asked)
    lock = read_lock(path)
    if lock is not None and lock.inputs == inputs:
        return lock, False
    shipped = read_lock(stack.shipped_lock)
    if shipped is not None and shipped.inputs == inputs:
        lock = shipped
    else:
        kept = [f"{p.name}=={p.version}" + (f" ; {p.marker}" if p.marker else "") for p in shipped.packages] if shipped else []
        lock = _resolve_around(stack, asked, kept, uv, interpreter)
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(lock.text(), encoding="utf-8")
    unfinished.replace(path)
    return lock, True


def _resolve_around(stack: Stack, asked: list[str], kept: list[str], uv: Uv, interpreter: Path) -> Lock:
    if kept:
        try:
            return resolve(stack, asked, kept, uv, interpreter)
        except AilabError as error:
            if "no solution found" not in error.detail.lower():
                raise
    return resolve(stack, asked, [], uv, interpreter)


def resolve(stack: Stack, asked: list[str], kept: list[str], uv: Uv, interpreter: Path) -> Lock:
    """Resolve for every Python and platform of the stack with `uv lock`; `kept` are pins to stay with."""
    with tempfile.TemporaryDirectory(prefix="ailab-lock-") as folder:
        project = Path(folder)
        (project / "pyproject.toml").write_text(_project(stack, asked, kept), encoding="utf-8")
        uv.run("lock", "--python", interpreter, cwd=project)
        words = ("export", "--frozen", "--no-emit-project", "--no-annotate", "--no-header", "--format", "requirements-txt")
        exported = uv.run(*words, "--python", interpreter, cwd=project)
    return Lock(stack.name, inputs_of(stack, asked), tuple(sorted(asked)), parse_requirements(exported))


def _project(stack: Stack, asked: list[str], kept: list[str]) -> str:
    minors = sorted(int(minor.split(".")[1]) for minor in stack.pythons)
    where = [f"sys_platform == 'linux' and platform_machine == '{platform}'" for platform in stack.platforms]
    return f"""[project]
name = "lab"
version = "0"
requires-python = ">=3.{minors[0]},<3.{minors[-1] + 1}"
dependencies = {json.dumps([*stack.packages, *asked])}
[tool.uv]
environments = {json.dumps(where)}
required-environments = {json.dumps(where)}
constraint-dependencies = {json.dumps([*stack.constraints, *kept])}
"""


def parse_requirements(text: str) -> tuple[Package, ...]:
    """The pins of a requirements file with hashes, sorted by name and version."""
    packages: list[Package] = []
    for block in re.split(r"\n(?=\S)", text.strip()):
        pin = _PIN.match(block.splitlines()[0])
        if pin:
            hashes = tuple(sorted(set(_HASH.findall(block))))
            packages.append(Package(pin[1], pin[2], (pin[3] or "").strip(), hashes))
    return tuple(sorted(packages, key=lambda package: (package.name, package.version, package.marker)))
