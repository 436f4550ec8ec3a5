"""Modes and owners: what only the lab's account may see, and what it must be able to write."""

from __future__ import annotations

import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ailab.doctor.facts import Facts, matching
from ailab.doctor.findings import Finding, Fix, error, fine, warning
from ailab.doctor.machine import existing
from ailab.i18n import _
from ailab.settings_file import PRIVATE, SettingsError, has_credentials, read_text

_FOLDER, _FILE = 0o700, 0o600


def machine_folders(facts: Facts) -> Iterator[Finding]:
    """Whether this account can write where environments and tools are kept."""
    folders = (*facts.machine.account_folders, *facts.machine.private_folders)
    closed = [folder for folder in folders if not os.access(existing(folder), os.W_OK | os.X_OK)]
    for folder in closed:
        yield error(
            _("This account may not write to {folder}.").format(folder=folder),
            _shown(existing(folder)),
            _("Run as the account that owns it, or set AILAB_HOME to a folder of yours."),
        )
    if not closed:
        yield fine(str(facts.machine.home))


def lab_folders(facts: Facts) -> Iterator[Finding]:
    """Whether what is private is ours alone."""
    assert facts.lab is not None, "a check of labs"
    if not facts.lab.state.exists():
        yield fine(_("The lab has never been started."))
        return
    strange = [*_strange(facts)]
    yield from strange
    if not strange:
        yield fine(_("Private folders are this account's alone."), str(facts.lab.state))


def _strange(facts: Facts) -> Iterator[Finding]:
    assert facts.lab is not None
    for path in (*facts.lab.private_folders, facts.lab.run):
        yield from _look(path, _FOLDER, facts.uid)
    yield from _settings_file(facts)
    for path in (*matching(facts.lab.secrets, "*"), facts.lab.database):
        yield from _look(path, _FILE, facts.uid)
    if facts.uid != 0 and not os.access(facts.lab.root, os.W_OK | os.X_OK):
        yield error(
            _("This account may not write to {folder}.").format(folder=facts.lab.root),
            _shown(facts.lab.root),
            _("Run as {owner}, who owns it.").format(owner=_name(facts.lab.root.stat().st_uid)),
        )


def _settings_file(facts: Facts) -> Iterator[Finding]:
    """Whether a lab.toml with a password or a token in it is for its account alone."""
    assert facts.lab is not None
    path = facts.lab.settings
    try:
        seen, text = path.stat(), read_text(path)
    except (OSError, SettingsError):
        return
    if stat.S_IMODE(seen.st_mode) & 0o077 and has_credentials(text):
        how = shlex.join(["chmod", f"{PRIVATE:o}", str(path)])
        fix = Fix(how, partial(_close, path, PRIVATE)) if seen.st_uid == facts.uid else None
        yield warning(_("Others can read the credentials in {path}.").format(path=path), _shown(path), how, fix)


def _look(path: Path, wanted: int, uid: int) -> Iterator[Finding]:
    """What is wrong with one path, if it is there. Links are not followed: a private folder is none."""
    try:
        seen = path.lstat()
    except OSError:
        return
    mode = stat.S_IMODE(seen.st_mode)
    if not (stat.S_ISDIR if wanted == _FOLDER else stat.S_ISREG)(seen.st_mode):
        yield error(
            _("{path} is not what it should be.").format(path=path),
            _shown(path),
            _("Remove it; ailab up makes it anew."),
        )
    elif seen.st_uid != uid:
        yield error(
            _("{path} belongs to another account.").format(path=path),
            _shown(path),
            _("Run as {owner}; or as root: chown -R {me}: {path}").format(
                owner=_name(seen.st_uid), me=_name(uid), path=path
            ),
        )
    elif mode != wanted:
        how = shlex.join(["chmod", f"{wanted:o}", str(path)])
        fix = Fix(how, partial(_close, path, wanted))
        if mode & ~wanted:
            yield error(_("Others may look into {path}.").format(path=path), _shown(path), how, fix)
        else:
            yield warning(_("The lab cannot fully use {path}.").format(path=path), _shown(path), how, fix)


def _close(path: Path, mode: int) -> None:
    """Set the mode of what stands at `path` itself: a link put there in the meantime is refused, not followed."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        Path(f"/proc/self/fd/{descriptor}").chmod(mode)
    finally:
        os.close(descriptor)


def _shown(path: Path) -> str:
    """As ls shows it: mode, owner, path."""
    seen = path.lstat()
    return f"{stat.filemode(seen.st_mode)} {_name(seen.st_uid)} {path}"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
