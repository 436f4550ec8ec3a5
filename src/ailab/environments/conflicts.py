"""Packages that cannot go together: which, where each is from, and what would resolve it, tried before it is said."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ailab.environments.lock_file import Package
from ailab.environments.uv_errors import DoNotFit
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.stacks import Stack

Resolve = Callable[[list[str]], Sequence[Package]]
_TRIALS = 2
_PYTHON = re.compile(r"does not satisfy Python|depends on Python")


@dataclass(frozen=True)
class StackSide:
    """What the stack has to say about a package: its requirement, and why that must not be left."""

    requirement: str
    reason: str


def explained(error: AilabError, stack: Stack, asked: list[str], resolve: Resolve) -> AilabError:
    """`error`, a resolver's "no solution", as one sentence with both origins, and a way out that `resolve` has tried.

    `error` itself where the resolver names none of what was asked for.
    """
    wishes = [wish for wish in asked if _is_named(wish, error.detail)]
    if not wishes:
        return error
    sides = [side for side in stack_sides(stack) if _is_named(side.requirement, error.detail)]
    message = _sentence(stack, wishes, sides, error.detail)
    return DoNotFit(message, remedy=_way_out(stack, asked, wishes, resolve), detail=error.detail)


def stack_sides(stack: Stack) -> list[StackSide]:
    """The versions that a stack holds fast: its bounds with their reasons, and the packages that it pins."""
    parsed = [Requirement(text) for text in stack.packages]
    pinned = [StackSide(f"{one.name}{one.specifier}", "") for one in parsed if one.specifier]
    return [*(StackSide(bound.requirement, bound.reason) for bound in stack.bounds), *pinned]


def brings(stack: Stack, requirement: str) -> bool:
    """Whether the package of `requirement` is one that the stack itself is made of."""
    name = canonicalize_name(Requirement(requirement).name)
    return name in {canonicalize_name(Requirement(text).name) for text in stack.packages}


def _sentence(stack: Stack, wishes: list[str], sides: list[StackSide], said: str) -> str:
    asked_for = ", ".join(wishes)
    if sides and sides[0].reason:
        return _("{wish}, which you ask for, and {bound}, a bound of {stack}, cannot go together: {reason}").format(
            wish=asked_for, bound=sides[0].requirement, stack=stack.title, reason=sides[0].reason
        )
    if sides:
        return _("{wish}, which you ask for, and {bound}, which {stack} is made of, cannot go together.").format(
            wish=asked_for, bound=sides[0].requirement, stack=stack.title
        )
    if len(wishes) > 1:
        return _("{wishes} cannot go together; you ask for all of them.").format(wishes=asked_for)
    if _PYTHON.search(said):
        return _("{wish}, which you ask for, does not run on every Python of {stack} ({pythons}).").format(
            wish=asked_for, stack=stack.title, pythons=", ".join(stack.pythons)
        )
    return _("{wish}, which you ask for, cannot go together with {stack}.").format(wish=asked_for, stack=stack.title)


def _way_out(stack: Stack, asked: list[str], wishes: list[str], resolve: Resolve) -> str:
    """The command that resolves it: a version that fits, found by resolving once more without the one asked for."""
    for wish in wishes:
        if brings(stack, wish):
            return _("{stack} brings {package} itself: leave it out. Other stacks: ailab env stacks").format(
                stack=stack.title, package=Requirement(wish).name
            )
    for wish in [one for one in wishes if Requirement(one).specifier][:_TRIALS]:
        wanted = Requirement(wish)
        bare = wanted.name + (f"[{','.join(sorted(wanted.extras))}]" if wanted.extras else "")
        try:
            packages = resolve([bare if one == wish else one for one in asked])
        except AilabError:
            continue
        versions = {one.version for one in packages if one.name == canonicalize_name(wanted.name)}
        return _("{package} {versions} fits: ailab env add {quoted}").format(
            package=bare, quoted=shlex.quote(bare), versions="/".join(sorted(versions))
        )
    return _("Leave out one of them, or use it in a lab with another stack. Those there are: ailab env stacks")


def _is_named(requirement: str, said: str) -> bool:
    """Whether the resolver's words name the package of `requirement`: by name, as a word of its own."""
    try:
        name = canonicalize_name(Requirement(requirement).name)
    except InvalidRequirement:
        return False
    return re.search(rf"(?<![A-Za-z0-9._-]){re.escape(name)}(?![A-Za-z0-9_-])", said) is not None
