"""Started as root: make sure of the lab's account, hand it what is its own, and become it for good."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from ailab import command
from ailab.engine import socket_path
from ailab.errors import AilabError, UsageError
from ailab.i18n import _
from ailab.paths import LabPaths, MachinePaths, lab_account

if TYPE_CHECKING:
    from ailab.settings import Settings

# Of a lab's folder, what is handed over with all that root made in it. Data sets elsewhere are not walked.
_LABS_OWN = ("lab.toml", "lab.lock", "notebooks", "models", "logs", ".ailab")
_TOO_SHALLOW = 2


def account_of(lab: Path) -> pwd.struct_passwd | None:
    """The account that a lab belongs to already: who owns its state, if that is not root."""
    state = LabPaths(lab).state
    if not state.exists() or state.stat().st_uid == 0:
        return None
    try:
        return pwd.getpwuid(state.stat().st_uid)
    except KeyError:
        return None


def prepare(lab: Path, machine: MachinePaths) -> pwd.struct_passwd:
    """What only root can do before the lab's account takes over: the account itself, and its folders."""
    refuse_system_folder(lab)
    account = account_of(lab) or _ensure_account(machine)
    lab.mkdir(parents=True, exist_ok=True)
    prepare_machine(machine, account)
    os.chown(lab, account.pw_uid, account.pw_gid)
    lab.chmod(stat.S_IMODE(lab.stat().st_mode) | 0o700)
    for name in _LABS_OWN:
        _hand_over(lab / name, account)
    for folder in (lab, machine.home):
        closed = closed_to(folder, account)
        if closed is not None:
            raise AilabError(
                _("The lab's account {account} cannot enter {folder} (mode {mode:o}).").format(
                    account=account.pw_name, folder=closed, mode=stat.S_IMODE(closed.stat().st_mode)
                ),
                remedy=_(
                    "Choose a place that it can reach, as /srv (--lab DIR, AILAB_HOME=DIR), or: chmod o+x {folder}"
                ).format(folder=closed),
            )
    return account


def prepare_machine(machine: MachinePaths, account: pwd.struct_passwd) -> None:
    """AILAB_HOME's folders, those that the account writes being its own."""
    _let_through(machine.home)
    for folder in (*machine.account_folders, _home(machine)):
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, account.pw_uid, account.pw_gid)


def become(account: pwd.struct_passwd, machine: MachinePaths, *, engine: bool = False) -> None:
    """Give up root for good: groups, gid, uid, and what the environment says of them.

    With `engine`, the account keeps the group that may use the container engine: for this process and what it starts.
    """
    home = _home(machine)
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


def _home(machine: MachinePaths) -> Path:
    return machine.home / "home"


def refuse_system_folder(lab: Path) -> None:
    """A lab's folder changes hands: never one that holds more than a lab."""
    if len(lab.parts) <= _TOO_SHALLOW or lab == Path.home():
        raise UsageError(
            _("{folder} cannot be a lab: the folder is handed to the lab's account.").format(folder=lab),
            remedy=_("Choose a folder of its own, as /srv/ailab."),
        )


def _ensure_account(machine: MachinePaths) -> pwd.struct_passwd:
    name = lab_account(os.environ)
    try:
        return pwd.getpwnam(name)
    except KeyError:
        pass
    words: list[str | Path] = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", _home(machine)]
    try:
        command.run([*words, "--shell", "/usr/sbin/nologin", name], timeout=30)
    except command.CommandFailed as error:
        error.remedy = _("Make a system account named {account} by hand and start again.").format(account=name)
        raise
    return pwd.getpwnam(name)


def _let_through(folder: Path) -> None:
    """AILAB_HOME is ours: others may pass through it (its folders have modes of their own)."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o755)


def _hand_over(path: Path, account: pwd.struct_passwd) -> None:
    """Give what root made at or below `path` to the account, links not followed."""
    for entry in (path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())):
        try:
            if entry.lstat().st_uid == 0:
                os.chown(entry, account.pw_uid, account.pw_gid, follow_symlinks=False)
        except FileNotFoundError:
            continue


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
    staged = interpreters.stage(stack, section.python, Uv(machine, settings.mirrors), account)
    if staged is not None:
        _hand_over(staged.parent.parent, account)


def refuse_unreadable_stacks(settings: Settings, account: pwd.struct_passwd) -> None:
    """Raises `UsageError` for a file of the lab's own stacks that the account, which reads them from now on, cannot."""
    from ailab.stacks import read_own

    for stack in read_own(settings.stacks).values():
        for file in stack.files:
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
    return load_settings(file) if file.exists() else Settings()
