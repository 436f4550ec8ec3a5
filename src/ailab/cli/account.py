"""Started as root: make sure of the lab's account, hand it what is its own, and become it for good."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from ailab import command, root_folders
from ailab.cli.output import note
from ailab.engine import socket_path
from ailab.errors import AilabError, Conflict, UsageError
from ailab.i18n import _
from ailab.lab_account import account_of, acting_as, reading
from ailab.paths import ROOTS_HOME, USERS_HOME, LabPaths, MachinePaths, system_account

if TYPE_CHECKING:
    from ailab.settings import Settings

# Of a lab's folder, what is handed over with all that root made in it. Data sets elsewhere are not walked.
_SETTINGS = ("lab.toml", "lab.lock")
_STATE = (*_SETTINGS, ".ailab")
_PEOPLES = ("notebooks", "models", "logs")
_TOO_SHALLOW = 2


def machine_of(account: pwd.struct_passwd) -> MachinePaths:
    """AILAB_HOME for the labs of `account`. Root's default one is for the account that root has made: where the lab is
    an ordinary user's, theirs, which they make themselves."""
    ours = MachinePaths.from_environment(os.environ)
    known = machine_account(ours)
    is_theirs = known is not None and known.pw_uid == account.pw_uid
    if is_theirs or account.pw_name == system_account(os.environ) or ours.home != ROOTS_HOME:
        return ours
    return MachinePaths(Path(account.pw_dir, USERS_HOME))


def prepare(lab: Path) -> tuple[pwd.struct_passwd, MachinePaths]:
    """What only root can do before the lab's account takes over: the account itself, and its folders. Returns both."""
    refuse_system_folder(lab)
    account = account_of(lab) or _ensure_account()
    machine = machine_of(account)
    prepare_machine(machine, account)
    with root_folders.opened(lab, make=True) as folder:
        refuse_system_folder(Path(f"/proc/self/fd/{folder}").readlink())
        os.fchown(folder, account.pw_uid, account.pw_gid)
        os.fchmod(folder, stat.S_IMODE(os.fstat(folder).st_mode) | 0o700)
        # Apart, so that many notebooks do not keep the lab's own state from being handed over.
        looked_at_all = [root_folders.hand_over(folder, names, account) for names in (_STATE, _PEOPLES)]
    if not all(looked_at_all):
        note(
            _("{lab} is too large for root to look at all of it: root's own files deep inside stay root's.").format(
                lab=lab
            )
        )
    for place in (lab, *([machine.home] if is_roots(machine) else [])):
        closed = closed_to(place, account)
        if closed is not None:
            raise AilabError(
                _("The lab's account {account} cannot enter {folder} (mode {mode:o}).").format(
                    account=account.pw_name, folder=closed, mode=stat.S_IMODE(closed.stat().st_mode)
                ),
                remedy=_(
                    "Choose a place that it can reach, as /srv (--lab DIR, AILAB_HOME=DIR), or: chmod o+x {folder}"
                ).format(folder=closed),
            )
    return account, machine


def is_roots(machine: MachinePaths) -> bool:
    """Whether it is root that prepares AILAB_HOME: not the one in an account's own home."""
    return machine.home == MachinePaths.from_environment(os.environ).home


def hand_over_settings(lab: Path, account: pwd.struct_passwd) -> None:
    """Give the lab's account lab.toml and lab.lock, which root may have edited: they are read with its rights."""
    with root_folders.opened(lab) as folder:
        root_folders.hand_over(folder, _SETTINGS, account)


def prepare_machine(machine: MachinePaths, account: pwd.struct_passwd) -> None:
    """AILAB_HOME's folders, those that the account writes being its own. Others may pass through it."""
    if not is_roots(machine):
        return
    with root_folders.opened(machine.home, make=True) as home:
        seen = os.fstat(home)
        if seen.st_uid != 0:
            raise _another_home(machine.home, seen.st_uid, account)
        os.fchmod(home, stat.S_IMODE(seen.st_mode) & ~0o022 | 0o755)
    private = (*machine.private_folders, machine.account_home)
    for folder in (*machine.account_folders, *private):
        with root_folders.opened(folder, make=True) as inside:
            owner = os.fstat(inside).st_uid
            if owner not in (0, account.pw_uid):
                raise _another_home(folder, owner, account)
            os.fchown(inside, account.pw_uid, account.pw_gid)
            if folder in private:
                os.fchmod(inside, 0o700)


def _another_home(folder: Path, owner: int, account: pwd.struct_passwd) -> Conflict:
    """Labs that share AILAB_HOME run what is in it, so it is never given from one account to another."""
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = str(owner)
    return Conflict(
        _("{folder} belongs to the account {owner}, and the lab to {account}.").format(
            folder=folder, owner=name, account=account.pw_name
        ),
        remedy=_("Run ailab as {account}, or set AILAB_HOME to a folder for the labs of that account.").format(
            account=account.pw_name
        ),
    )


def machine_account(machine: MachinePaths) -> pwd.struct_passwd | None:
    """The account whose labs share AILAB_HOME; None where it is root's, or there is none yet."""
    for folder in (*machine.account_folders, *machine.private_folders):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, KeyError):
            owner = folder.stat().st_uid
            if owner != 0:
                return pwd.getpwuid(owner)
    return None


def become(account: pwd.struct_passwd, machine: MachinePaths, *, engine: bool = False) -> None:
    """Give up root for good: groups, gid, uid, and what the environment says of them.

    With `engine`, the account keeps the group that may use the container engine: for this process and what it starts.
    """
    home = machine.account_home if is_roots(machine) else Path(account.pw_dir)
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    os.setgroups([*groups, *(_engine_groups() if engine else ())])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        del os.environ[name]
    os.environ |= {
        "HOME": str(home),
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        "AILAB_HOME": str(machine.home),
    }
    try:
        Path.cwd().stat()
    except OSError:
        os.chdir("/")


def _engine_groups() -> list[int]:
    """The group that the engine's socket belongs to; never root's own."""
    socket = socket_path()
    group = socket.stat().st_gid if socket is not None and socket.exists() else 0
    return [group] if group else []


def refuse_system_folder(lab: Path) -> None:
    """A lab's folder changes hands: never one that holds more than a lab."""
    if len(lab.parts) <= _TOO_SHALLOW or lab == Path.home():
        raise UsageError(
            _("{folder} cannot be a lab: the folder is handed to the lab's account.").format(folder=lab),
            remedy=_("Choose a folder of its own, as /srv/ailab."),
        )


def _ensure_account() -> pwd.struct_passwd:
    name = system_account(os.environ)
    try:
        return pwd.getpwnam(name)
    except KeyError:
        pass
    words = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
    try:
        command.run([*words, "--home-dir", MachinePaths.from_environment(os.environ).account_home, name], timeout=30)
    except command.CommandFailed as error:
        error.remedy = _("Make a system account named {account} by hand and start again.").format(account=name)
        raise
    return pwd.getpwnam(name)


def closed_to(path: Path, account: pwd.struct_passwd) -> Path | None:
    """The first folder on the way to and including `path` that the account cannot enter; None when it can."""
    for folder in (*reversed(path.resolve().parents), path.resolve()):
        if not _may(account, folder, stat.S_IXOTH):
            return folder
    return None


def _reads(account: pwd.struct_passwd, file: Path) -> bool:
    return closed_to(file.parent, account) is None and _may(account, file, stat.S_IROTH)


def _may(account: pwd.struct_passwd, path: Path, wanted: int) -> bool:
    """Whether the mode of `path` allows the account what `wanted`, a bit for others, stands for."""
    seen = path.stat()
    mine = seen.st_uid == account.pw_uid
    shift = 6 if mine else 3 if seen.st_gid in os.getgrouplist(account.pw_name, account.pw_gid) else 0
    return bool(seen.st_mode & (wanted << shift))


def stage_interpreter(settings: Settings, machine: MachinePaths, account: pwd.struct_passwd) -> None:
    """Bring root's own Python to where the account can run it, when the account has none that fits the stack."""
    from ailab.environments import interpreters
    from ailab.environments.uv import Uv
    from ailab.stacks import load_stack

    section = settings.environment
    stack = load_stack(section.stack, settings.stacks)
    interpreters.stage(stack, section.python, Uv(machine, settings.mirrors), account)


def refuse_unreadable_stacks(settings: Settings, account: pwd.struct_passwd) -> None:
    """Raises `UsageError` for a file of the lab's own stacks that the account, which reads them from now on, cannot."""
    from ailab.stacks import read_own

    for file in map(Path, settings.stacks):
        if file.exists():
            _refuse_unreadable(file, account)
    with acting_as(account):
        stacks = read_own(settings.stacks)
    for stack in stacks.values():
        for file in stack.files:
            _refuse_unreadable(file, account)


def _refuse_unreadable(file: Path, account: pwd.struct_passwd) -> None:
    if not _reads(account, file):
        raise UsageError(
            _("The lab's account {account} cannot read {file}.").format(account=account.pw_name, file=file),
            remedy=_("Let it: chmod o+r {file}, and chmod o+x each folder above it.").format(file=file),
        )


def settings_of(lab: Path) -> Settings:
    """The settings of the lab in a folder; those of a new lab where there is none yet."""
    from ailab.settings import Settings
    from ailab.settings_file import load_settings

    file = LabPaths(lab).settings
    with reading(lab):
        return load_settings(file) if file.exists() else Settings()
