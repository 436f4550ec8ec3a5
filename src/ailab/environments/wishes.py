"""[environment] packages of a lab.toml: adding, removing, and the text of the file with comments where they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ailab.environments.conflicts import brings
from ailab.environments.lock import Lock, check_wish
from ailab.errors import NotFound, UsageError
from ailab.i18n import _
from ailab.stacks import Stack

if TYPE_CHECKING:
    from tomlkit.items import Array


@dataclass(frozen=True)
class Edit:
    """The packages after a change, which of them are `new`, which went (`gone`), and which wishes were `there`."""

    packages: list[str]
    new: list[str]
    gone: list[str]
    there: list[str]


def add(packages: Sequence[str], wishes: Sequence[str], stack: Stack) -> Edit:
    """`packages` with `wishes`; one of the same name is replaced where it stands. Raises `UsageError` for what is no
    package by name.

    A package of the stack itself, named without a version, is there already.
    """
    after, new, there = list(packages), [], []
    for wish in wishes:
        check_wish(wish)
        if wish in after or (brings(stack, wish) and _is_bare(wish)):
            there.append(wish)
            continue
        after = _with(after, wish)
        new.append(wish)
    return Edit(after, new, [one for one in packages if one not in after], there)


def remove(packages: Sequence[str], names: Sequence[str], stack: Stack, lock: Lock | None) -> Edit:
    """`packages` without those called `names`. Raises `NotFound` that says where a name that is not there is from."""
    gone: list[str] = []
    for name in names:
        wanted = _name(name)
        found = [one for one in packages if _name_or_none(one) == wanted]
        if not found:
            raise _not_there(name, wanted, packages, stack, lock)
        gone += found
    return Edit([one for one in packages if one not in gone], [], gone, [])


def _name(text: str) -> str:
    try:
        return canonicalize_name(Requirement(text).name)
    except InvalidRequirement:
        raise UsageError(
            _("{name} is not the name of a package.").format(name=repr(text)),
            remedy=_("For example: ailab env remove seaborn"),
        ) from None


def _name_or_none(text: str) -> str | None:
    """The name of a package as lab.toml has it; None where a person wrote something else there."""
    try:
        return canonicalize_name(Requirement(text).name)
    except InvalidRequirement:
        return None


def _is_bare(text: str) -> bool:
    wish = Requirement(text)
    return not (wish.specifier or wish.extras or wish.marker)


def _with(packages: list[str], wish: str) -> list[str]:
    """`packages` with `wish` in the place of those of its name: all of them, or those under the same marker."""
    wanted = Requirement(wish)
    after: list[str] = []
    placed = False
    for one in packages:
        is_same = _name_or_none(one) == canonicalize_name(wanted.name)
        if is_same and (wanted.marker is None or str(Requirement(one).marker) == str(wanted.marker)):
            after += [] if placed else [wish]
            placed = True
        else:
            after.append(one)
    return after if placed else [*after, wish]


def _not_there(name: str, wanted: str, packages: Sequence[str], stack: Stack, lock: Lock | None) -> NotFound:
    if brings(stack, name):
        return NotFound(
            _("{name} belongs to {stack}: it cannot be removed.").format(name=name, stack=stack.title),
            remedy=_("Another stack may do without it: ailab env stacks"),
        )
    there = lock is not None and any(package.name == wanted for package in lock.packages)
    came = _("{name} is not in [environment] packages: it came because another package needs it.")
    message = came if there else _("{name} is not in [environment] packages.")
    return NotFound(
        message.format(name=name), remedy=_("Yours are: {packages}.").format(packages=", ".join(packages) or "-")
    )


def with_packages(text: str, packages: Sequence[str]) -> str:
    """The text of a lab.toml with these [environment] packages; everything else, comments too, stays as it was."""
    import tomlkit

    mark = "\ufeff" if text.startswith("\ufeff") else ""
    document = tomlkit.parse(text.removeprefix(mark))
    section: Any = document.setdefault("environment", tomlkit.table())
    if "packages" not in section:
        section["packages"] = list(packages)
    else:
        _make_equal(section["packages"], packages)
    return mark + tomlkit.dumps(document)


def _make_equal(array: Array, packages: Sequence[str]) -> None:
    """Turn `array` into `packages` entry by entry, so that the comments between its lines stay."""
    wanted = list(packages)
    for at in range(len(array) - 1, -1, -1):
        replaced = _replacement(str(array[at]), list(map(str, array)), wanted)
        if replaced is None:
            del array[at]
        elif replaced != array[at]:
            array[at] = replaced
    there = list(map(str, array))
    for package in wanted:
        if package not in there:
            array.append(package)


def _replacement(old: str, array: list[str], wanted: list[str]) -> str | None:
    """What stands where `old` stood: itself, a package of its name that is not there yet, or nothing."""
    if old in wanted:
        return old
    return next(
        (one for one in wanted if one not in array and _name_or_none(one) == _name_or_none(old) is not None), None
    )
