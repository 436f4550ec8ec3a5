"""`ailab env add, remove, import, export` and `lock --upgrade`: a lab's own packages."""

from __future__ import annotations

import enum
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ailab.cli import labs
from ailab.cli.output import note, print_json, say, step
from ailab.errors import NotFound, UsageError
from ailab.i18n import _

if TYPE_CHECKING:
    from ailab.change import Editor, Made
    from ailab.environments.lock import Lock
    from ailab.environments.upgrade import Difference
    from ailab.environments.wishes import Edit
    from ailab.lab import Lab
    from ailab.stacks import Stack

Json = Annotated[bool, typer.Option("--json", help=_("Print JSON."))]
Packages = Annotated[list[str], typer.Argument(metavar="PKG...", help=_('As pip names them: seaborn, "xgboost<3".'))]


class Format(enum.StrEnum):
    requirements = "requirements"
    pylock = "pylock"


def register(app: typer.Typer) -> None:
    app.command("add", help=_("Add packages to lab.toml, lock, build and switch; or leave all as it was."))(add)
    app.command("remove", help=_("Take packages out of lab.toml, lock, build and switch."))(remove)
    app.command("import", help=_("Add what a requirements.txt or conda's environment.yml asks for."))(import_)
    app.command("export", help=_("Write lab.lock as requirements.txt with hashes, or as pylock.toml."))(export)


def add(packages: Packages, json: Json = False) -> None:
    from ailab.environments import wishes

    _change(labs.open_lab(), lambda own, stack, _lock: wishes.add(own, packages, stack), ["add", *packages], json=json)


def remove(packages: Packages, json: Json = False) -> None:
    from ailab.environments import wishes

    def edited(own: list[str], stack: Stack, lock: Lock | None) -> Edit:
        return wishes.remove(own, packages, stack, lock)

    _change(labs.open_lab(), edited, ["remove", *packages], json=json)


def import_(file: Annotated[Path, typer.Argument(help=_("The file."))], json: Json = False) -> None:
    from ailab import provision
    from ailab.environments import importing, wishes

    # Read before root is given up: the file need not be the lab's.
    found = importing.read_packages(file)
    lab = labs.open_lab()
    found = importing.within(found, provision.lab_stack(lab))
    for what, why in found.left:
        note(f"- {what}: {why}")
    if not found.packages:
        raise NotFound(
            _("{file} names no package that can be added.").format(file=file),
            remedy=_("Add one by its name: ailab env add NAME"),
        )
    left = [{"what": what, "why": why} for what, why in found.left]
    words = ["import", file.name]
    _change(
        lab, lambda own, stack, _lock: wishes.add(own, found.packages, stack), words, json=json, more={"left": left}
    )


def _change(lab: Lab, editor: Editor, why: list[str], *, json: bool, more: dict[str, object] | None = None) -> None:
    """Make a change of the packages, and say what it came to."""
    from ailab import change

    lab.make_private_folders()
    edit, made = change.change_packages(lab, editor, shlex.join(["env", *why]), step, note)
    if json:
        print_json(_document(edit, made) | (more or {}))
        return
    for sentence, wishes in (
        (_("There already: {packages}"), edit.there),
        (_("Added: {packages}"), edit.new),
        (_("Removed: {packages}"), edit.gone),
    ):
        _say_names(sentence, wishes)
    if made is not None:
        if made.before is not None:
            _tell_difference(made.before, made.after)
        say(_("In use: {id}. New kernels get it; open ones keep theirs.").format(id=made.generation.id))


def _document(edit: Edit, made: Made | None) -> dict[str, object]:
    """What a change came to, as docs/reference/json.md says."""
    from ailab.environments.lock import moved

    return {
        "packages": edit.packages,
        "added": edit.new,
        "removed": edit.gone,
        "there": edit.there,
        "moved": moved(made.before, made.after) if made is not None and made.before is not None else [],
        "lock": made.after.digest() if made is not None else "",
        "generation": made.generation.id if made is not None else "",
    }


def _say_names(sentence: str, names: list[str]) -> None:
    if names:
        say(sentence.format(packages=", ".join(names)))


def _tell_difference(before: Lock, after: Lock) -> Difference:
    from ailab.environments.upgrade import difference

    found = difference(before, after)
    _say_names(_("New in the lock: {packages}"), found.new)
    _say_names(_("No longer in the lock: {packages}"), found.gone)
    _say_names(_("Moved: {packages}"), found.moved)
    return found


def upgrade(packages: list[str], *, upgrade: bool, json: bool) -> None:
    """`env lock --upgrade [PKG]...`."""
    from ailab import change, provision
    from ailab.environments.upgrade import difference

    if not upgrade:
        raise UsageError(
            _("env lock takes names only with --upgrade."),
            remedy=_("Take newer versions: ailab env lock --upgrade {names}").format(names=" ".join(packages)),
        )
    lab = labs.open_lab()
    lab.make_private_folders()
    before, after = change.upgrade_lock(lab, packages, step)
    if json:
        found = difference(before, after)
        print_json({"lock": after.digest(), "new": found.new, "gone": found.gone, "moved": found.moved})
        return
    found = _tell_difference(before, after)
    _tell_what_stays(packages, found, provision.lab_stack(lab))
    if found.moved or found.new or found.gone:
        say(_("Build it and switch to it: ailab env build"))
    elif not packages:
        say(_("Everything is at the newest version that the stack allows."))


def _tell_what_stays(packages: list[str], found: Difference, stack: Stack) -> None:
    from ailab.environments.upgrade import held_back

    for name in packages:
        if any(line.startswith(f"{name} ") for line in found.moved):
            continue
        side = held_back(name, stack)
        if side is None:
            say(_("{name} stays: there is no newer version that fits.").format(name=name))
        else:
            sentence = _("{name} stays: the stack's bound is {bound}. {reason}")
            say(sentence.format(name=name, bound=side.requirement, reason=side.reason).rstrip())


def export(
    format: Annotated[Format, typer.Option("--format", help=_("pylock.toml is PEP 751's."))] = Format.requirements,
    output: Annotated[Path | None, typer.Option("--output", "-o", help=_("A file instead of standard output."))] = None,
) -> None:
    from ailab import provision

    text = provision.exported(labs.open_lab(), format.value)
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            _("{path} cannot be written: {reason}.").format(path=output, reason=error.strerror),
            remedy=_("Name a place that the lab's account may write to, or: ailab env export > FILE"),
        ) from None
    say(_("Wrote {path}.").format(path=output))
