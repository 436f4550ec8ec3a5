"""Newer versions for a lock, on demand: of the packages that are named, or of all; and what that moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ailab.environments.conflicts import StackSide, stack_sides
from ailab.environments.lock import Lock, moved, resolve_around, vouched_for, with_known_hashes
from ailab.environments.uv import Uv
from ailab.errors import NotFound
from ailab.i18n import _
from ailab.stacks import Stack


@dataclass(frozen=True)
class Difference:
    """Between two locks: pins that are new, names that are gone, and what moved ("numpy 1.23.5 -> 1.22.4")."""

    new: list[str]
    gone: list[str]
    moved: list[str]


def difference(before: Lock | None, after: Lock) -> Difference:
    old, new = versions(before), versions(after)
    return Difference(
        [f"{name} {new[name]}" for name in sorted(new.keys() - old.keys())],
        sorted(old.keys() - new.keys()),
        moved(before, after) if before is not None else [],
    )


def versions(lock: Lock | None) -> dict[str, str]:
    """Each package's version, or versions ("2.0.3/2.3.3") where Pythons have different ones."""
    found: dict[str, set[str]] = {}
    for package in lock.packages if lock is not None else ():
        found.setdefault(package.name, set()).add(package.version)
    return {name: "/".join(sorted(some)) for name, some in found.items()}


def upgraded(known: Lock, names: Sequence[str], stack: Stack, asked: list[str], uv: Uv, interpreter: Path) -> Lock:
    """`known` with the packages called `names` at their newest within the stack's bounds, and nothing else moved; with
    no names all of it. Raises `NotFound` for a name that the lock does not have."""
    wanted = {canonicalize_name(name): name for name in names}
    there = {package.name for package in known.packages}
    missing = [name for plain, name in wanted.items() if plain not in there]
    if missing:
        raise NotFound(
            _("{names}: not in lab.lock.").format(names=", ".join(missing)),
            remedy=_("Add it: ailab env add {names}").format(names=" ".join(missing)),
        )
    stay = [package for package in known.packages if wanted and package.name not in wanted]
    lock, _moved_others = resolve_around(stack, asked, stay, uv, interpreter)
    return vouched_for(replace(with_known_hashes(lock, known.packages), image=known.image), uv)


def held_back(name: str, stack: Stack) -> StackSide | None:
    """The bound of the stack that holds the package called `name`, if one does."""
    plain = canonicalize_name(name)
    return next(
        (one for one in stack_sides(stack) if canonicalize_name(Requirement(one.requirement).name) == plain), None
    )
