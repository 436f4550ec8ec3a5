"""Changes of a lab's packages: lab.toml, lab.lock and the environment in one step, or all as it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ailab import preflight
from ailab.i18n import _
from ailab.lab import Lab
from ailab.paths import LabPaths, MachinePaths, account_name
from ailab.provision import Step, build, find_python, lab_stack, uv_of, wish_of
from ailab.settings_file import settings_from

if TYPE_CHECKING:
    from ailab.environments.generations import Generation
    from ailab.environments.interpreters import Interpreter
    from ailab.environments.lock import Lock
    from ailab.environments.wishes import Edit
    from ailab.stacks import Stack

# From the packages of lab.toml, the stack and the lock that there is, what they are to be.
Editor = Callable[[list[str], "Stack", "Lock | None"], "Edit"]


@dataclass(frozen=True)
class Made:
    """What a change came to: the lock before and after, and the generation in use."""

    before: Lock | None
    after: Lock
    generation: Generation


def open_lab(root: Path, tell: Callable[[str], None]) -> Lab:
    """The lab at `root`, after what a killed command left has been finished or undone; `tell` says which.

    A change that is under way in another process is left to that. Raises what `Lab.open` does.
    """
    # Where this account may not look, it has nothing to finish either.
    if os.access(LabPaths(root).pending_change, os.R_OK):
        _recover(root, tell)
    return Lab.open(root)


def _recover(root: Path, tell: Callable[[str], None]) -> None:
    from ailab.environments.generations import Generations
    from ailab.environments.journal import Journal

    paths = LabPaths(root)
    journal = Journal(paths, Generations(MachinePaths.from_environment(os.environ), paths))
    with journal.held(wait=False) as ours:
        done = journal.recover() if ours else ""
    if done == "finished":
        tell(_("An earlier change of the packages was cut short; it is finished now."))
    elif done == "undone":
        tell(_("An earlier change of the packages was cut short; it is undone now."))


def change_packages(
    lab: Lab, editor: Editor, why: str, step: Step, tell: Callable[[str], None]
) -> tuple[Edit, Made | None]:
    """Edit [environment] packages with `editor`, lock, build and switch; None where there was nothing to edit.

    `why` goes into the history of switches; `tell` says what the GPU lacks. Whatever fails leaves lab.toml, lab.lock
    and the generation in use as they were; see `environments.journal` for what a kill leaves.
    """
    from ailab.environments import lock
    from ailab.environments.journal import Change, Journal, State
    from ailab.environments.wishes import with_packages

    journal = Journal(lab.paths, lab.generations)
    with journal.held():
        journal.recover()
        before = journal.state()
        known = lock.read_lock(lab.paths.lock)
        lab = _with_text(lab, before.settings)
        edit = editor(lab.settings.environment.packages, lab_stack(lab), known)
        if not (edit.new or edit.gone):
            return edit, None
        text = with_packages(before.settings, edit.packages)
        lab = _with_text(lab, text)
        with_cuda = preflight.wants_cuda(lab, lab_stack(lab), tell)
        after, interpreter = _lock(lab, known, step)
        generation = build(lab, after, interpreter, step, tell, with_cuda=with_cuda)
        state = State(text, before.lock if after is known else after.text(), generation.id)
        journal.make(Change(before, state, account_name(), why, wish_of(lab)))
    return edit, Made(known, after, generation)


def _with_text(lab: Lab, text: str) -> Lab:
    """`lab` as it is, or will be, with `text` as its lab.toml."""
    return replace(lab, settings=settings_from(lab.paths.settings, text))


def upgrade_lock(lab: Lab, names: list[str], step: Step) -> tuple[Lock, Lock]:
    """lab.lock with the packages called `names` (all, where none are named) at the newest versions that the stack
    allows: the lock as it was and as it is now. It is written only where something moved."""
    from ailab.environments import lock, upgrade
    from ailab.environments.journal import Journal

    with Journal(lab.paths, lab.generations).held():
        known = lock.read_lock(lab.paths.lock)
        made, interpreter = _lock(lab, known, step)
        with step(_("Looking for newer versions")):
            packages = lab.settings.environment.packages
            newer = upgrade.upgraded(made, names, lab_stack(lab), packages, uv_of(lab), interpreter.program)
        if newer != known:
            lock.write_lock(lab.paths.lock, newer)
    return made, newer


def _lock(lab: Lab, known: Lock | None, step: Step) -> tuple[Lock, Interpreter]:
    """The lock that the lab's settings ask for, not written, and the interpreter that it was made with."""
    from ailab.environments import lock

    interpreter = find_python(lab, step)
    with step(_("Locking the environment")) as far:
        packages = lab.settings.environment.packages
        return lock.wanted_lock(known, lab_stack(lab), packages, uv_of(lab), interpreter.program, far), interpreter
