"""`ailab env stacks | try`: the stacks that a lab can ask for, and whether one still works today."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ailab.cli import account, invocation
from ailab.cli.output import note, print_json, say, step, table
from ailab.errors import AilabError, NotFound, UsageError
from ailab.i18n import _
from ailab.lab_account import account_of, acting_as_owner, reading
from ailab.paths import LabPaths, MachinePaths, locate_lab

if TYPE_CHECKING:
    from ailab.environments.interpreters import Interpreter
    from ailab.environments.lock import Lock
    from ailab.environments.trial import Outcome
    from ailab.environments.upgrade import Difference
    from ailab.environments.uv import Uv
    from ailab.settings import Settings
    from ailab.stacks import Stack

Json = Annotated[bool, typer.Option("--json", help=_("Print JSON."))]


def register(app: typer.Typer) -> None:
    app.command("stacks", help=_("The stacks that a lab can ask for: ailab's, and those of lab.toml."))(stacks)
    app.command("try", help=_("Resolve a stack anew, build it and run its whole proof; keep nothing."))(try_)


def stacks(json: Json = False) -> None:
    from ailab.stacks import list_stacks, load_stack

    lab, settings = _lab_and_settings()
    found = [load_stack(name, settings.stacks) for name in list_stacks(settings.stacks)]
    if json:
        print_json([_document(one) for one in found])
        return
    headings = [_("STACK"), "PYTHON", "CUDA", _("DRIVER"), _("MACHINES")]
    lines = table(headings, [_row(one) for one in found]).splitlines()
    for number, one in enumerate(found, start=1):
        lines[number] += f"\n     {one.title}; {_origin(one, lab)}"
    say("\n".join(lines))


def _row(stack: Stack) -> list[str]:
    cuda = ["-", "-"] if stack.cuda is None else [stack.cuda.version, f">={stack.cuda.driver}"]
    return [stack.name, ", ".join(stack.pythons), *cuda, ", ".join(stack.platforms)]


def _origin(stack: Stack, lab: Path | None) -> str:
    if stack.is_shipped:
        return _("ships with ailab")
    shown = stack.file.relative_to(lab) if lab is not None and stack.file.is_relative_to(lab) else stack.file
    return _("from {file}").format(file=shown)


def _document(stack: Stack) -> dict[str, Any]:
    from ailab.stacks import CUDA_PLATFORM

    cuda = None
    if stack.cuda is not None:
        cuda = {"version": stack.cuda.version, "driver": stack.cuda.driver, "platforms": [CUDA_PLATFORM]}
    return {
        "name": stack.name,
        "version": stack.version,
        "title": stack.title,
        "pythons": stack.pythons,
        "platforms": stack.platforms,
        "cuda": cuda,
        "shipped": stack.is_shipped,
        "file": str(stack.file),
    }


def _lab_and_settings() -> tuple[Path | None, Settings]:
    """The lab that the command means and its settings; where there is none, the defaults."""
    from ailab.settings import Settings
    from ailab.settings_file import load_settings

    try:
        lab = locate_lab(invocation.current.lab, Path.cwd(), os.environ)
    except NotFound:
        return None, Settings()
    with reading(lab):
        return lab, load_settings(LabPaths(lab).settings)


def try_(
    stack: Annotated[str, typer.Argument(help=_("Its name, as env stacks shows it."))],
    python: Annotated[
        list[str] | None, typer.Option(help=_("Only on this Python (3.11); may be given several times."))
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help=_("Write the tested lock beside the stack's file when every proof passed."))
    ] = False,
    json: Json = False,
) -> None:
    from ailab.environments import lock, trial, upgrade
    from ailab.environments.uv import Uv
    from ailab.stacks import load_stack

    lab, settings = _lab_and_settings()
    one = load_stack(stack, settings.stacks)
    uv = Uv(_machine(lab), settings.mirrors)
    there = trial.pythons_here(one, python or [], uv)
    found = {minor: interpreter for minor, interpreter in there.items() if interpreter is not None}
    if not found:
        raise NotFound(
            _("{stack} cannot be tried: none of its Pythons is on this machine.").format(stack=one.title),
            remedy=_("Install Python {pythons} so that it is on PATH, or by pyenv.").format(pythons=", ".join(there)),
        )
    before = lock.read_lock(one.shipped_lock)
    with step(_("Resolving {stack} against today's index").format(stack=one.title)):
        after = lock.resolve(one, [], [], uv, next(iter(found.values())).program)
    outcomes = _proofs(one, after, found, uv)
    passed = all(outcome.ok for outcome in outcomes)
    if write and passed:
        _write(one, after)
    difference = upgrade.difference(before, after)
    missing = [minor for minor in there if minor not in found]
    if json:
        changes = {"new": difference.new, "gone": difference.gone, "moved": difference.moved}
        proofs = {"ok": passed, "proofs": [outcome.to_json() for outcome in outcomes], "not_here": missing}
        print_json({"stack": one.name, **changes, **proofs, "written": write and passed})
    else:
        say("\n".join([*_changes(before, difference), *_told(outcomes, missing)]))
    if not passed:
        raise typer.Exit(1)


def _machine(lab: Path | None) -> MachinePaths:
    """Where to build: as root, as the account whose labs keep their downloads there. Where there is none, root builds
    in AILAB_HOME, of which nothing is another account's."""
    machine = MachinePaths.from_environment(os.environ)
    if os.geteuid() == 0:
        owner = (account_of(lab) if lab is not None else None) or account.machine_account(machine)
        if owner is not None:
            machine = account.machine_of(owner)
            account.prepare_machine(machine, owner)
            account.become(owner, machine)
        elif "AILAB_HOME" not in os.environ:
            raise UsageError(
                _("As root a stack is not tried where labs keep their downloads."),
                remedy=_("Do it as another account, or set AILAB_HOME to a folder for it."),
            )
    return machine


def _proofs(stack: Stack, lock: Lock, found: dict[str, Interpreter], uv: Uv) -> list[Outcome]:
    from ailab.environments import trial

    outcomes = []
    with trial.workshop(uv.machine) as workshop:
        for interpreter in found.values():
            title = _("Building and proving it on Python {python}").format(python=interpreter.version)
            with step(title) as tell:
                outcomes.append(workshop.try_lock(stack, lock, interpreter, uv, tell))
    return outcomes


def _write(stack: Stack, lock: Lock) -> None:
    from ailab.environments.lock import write_lock

    try:
        with acting_as_owner(stack.shipped_lock.parent):
            write_lock(stack.shipped_lock, lock)
    except OSError as error:
        raise AilabError(
            _("{path} cannot be written: {reason}.").format(path=stack.shipped_lock, reason=error.strerror),
            remedy=_("Do it as the account that the stack's file belongs to."),
        ) from error
    note(_("Wrote {path}.").format(path=stack.shipped_lock))


def _changes(before: Lock | None, difference: Difference) -> list[str]:
    """What today's index makes of it, against the tested lock."""
    if before is None:
        return [_("It has no tested lock yet.")]
    lines = [f"+ {one}" for one in difference.new] + [f"- {one}" for one in difference.gone]
    return [*lines, *(f"~ {one}" for one in difference.moved)] or [_("Nothing has moved since it was tested.")]


def _told(outcomes: list[Outcome], missing: list[str]) -> list[str]:
    lines = []
    for one in outcomes:
        said = _("ok") if one.ok else _("failed: {error}").format(error=one.error)
        lines.append(f"Python {one.python}: {said} ({one.seconds:.0f} s)")
    return [*lines, *(_("Python {python}: not on this machine, not tried").format(python=one) for one in missing)]
