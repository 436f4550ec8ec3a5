"""How a command gets its lab: found or made, and with root given up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ailab.cli import account, invocation
from ailab.cli.output import note
from ailab.errors import NotRunning
from ailab.i18n import _, use_language
from ailab.lab_account import account_of
from ailab.paths import LabPaths, default_lab, find_lab, locate_lab, real_path

if TYPE_CHECKING:
    from ailab.lab import Lab


def open_lab(*, engine: bool = False) -> Lab:
    """The lab that this command means, as the account that it belongs to.

    With `engine`, and where tasks of the lab are containers, the account may use the container engine where it is root
    that gave the command."""
    root = located()
    if os.geteuid() == 0:
        owner = account_of(root)
        if owner is None:
            raise NotRunning(_("The lab in {path} has never been started.").format(path=root), remedy="ailab up")
        machine = account.machine_of(owner)
        account.prepare_machine(machine, owner)
        account.become(owner, machine, engine=engine or _has_containers(root))
    return opened(root)


def located() -> Path:
    """The folder of the lab that this command means."""
    return locate_lab(invocation.current.lab, Path.cwd(), os.environ)


def opened(root: Path) -> Lab:
    """The lab at `root`; what a killed command left of a change is finished or undone first, and said."""
    from ailab import change

    return speaking(change.open_lab(root, note))


def folder_for_up() -> Path:
    """Where `up` works: the lab named or found, else the default place, which need not exist yet."""
    named = invocation.current.lab
    return real_path(named or find_lab(Path.cwd()) or default_lab(os.environ))


def take_over_settings() -> None:
    """As root: give the lab's account what root has edited of its settings, which are read with its rights."""
    root = folder_for_up()
    owner = account_of(root) if os.geteuid() == 0 and root.exists() else None
    if owner is not None:
        account.hand_over_settings(root, owner)
        account.refuse_unreadable_stacks(account.settings_of(root), owner)


def enter(root: Path, *, engine: bool = False) -> None:
    """Make `root` a folder of the lab's account, and become that account; nothing to do without root. `engine` as in
    `open_lab`."""
    if os.geteuid() == 0:
        owner, machine = account.prepare(root)
        settings = account.settings_of(root)
        account.refuse_unreadable_stacks(settings, owner)
        if account.is_roots(machine):
            account.stage_interpreter(settings, machine, owner)
        account.become(owner, machine, engine=engine or _has_containers(root))
    else:
        root.mkdir(parents=True, exist_ok=True)


def _has_containers(root: Path) -> bool:
    """Whether tasks of the lab are containers, or were before lab.toml was changed and may still run."""
    from ailab.runtimes.registry import uses_engine

    runtime = account.settings_of(root).lab.runtime
    return uses_engine(runtime) or LabPaths(root).workspaces.exists()


def speaking(lab: Lab) -> Lab:
    """The person's language is their own setting; a lab in Chinese speaks Chinese where they set none."""
    if "AILAB_LANG" not in os.environ and os.environ.get("LANG", "C").split(".")[0] in ("C", "POSIX", ""):
        use_language(lab.settings.lab.language)
    return lab
