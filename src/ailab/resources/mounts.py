"""Folders that come into a lab from elsewhere: whether each can serve, looked at before anything is started."""

from __future__ import annotations

import errno
import os
import pwd
import stat
from pathlib import Path

from ailab.engine import socket_path
from ailab.errors import AilabError, UsageError
from ailab.i18n import _
from ailab.paths import LabPaths, account_name
from ailab.settings import Mount
from ailab.waiting import TimedOut, within

# A network disk whose server is gone may never answer.
_ANSWER_SECONDS = 5.0
# How a network disk that is gone, or its FUSE program, says so.
_STALE = (errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.EREMOTEIO)


def check(mount: Mount, lab: LabPaths) -> None:
    """Raises `UsageError` with what is wrong with a mount of the lab, and the command that mends it. Runs as the
    account that the lab's tasks run as."""
    path = Path(mount.path)
    _refuse_secrets(path, lab)
    try:
        within(_ANSWER_SECONDS, lambda: _check(path, read_only=mount.read_only), str(path))
    except TimedOut:
        raise UsageError(
            _("{path} did not answer within {seconds:g} s: is its server gone?").format(
                path=path, seconds=_ANSWER_SECONDS
            ),
            remedy=_mount_again(path),
        ) from None


def _refuse_secrets(path: Path, lab: LabPaths) -> None:
    """A mount must not bring the lab's own state, or the engine, into the hands of who works in the lab."""
    real, engine = path.resolve(), socket_path()
    if real.is_relative_to(lab.state.resolve()) or lab.state.resolve().is_relative_to(real):
        raise UsageError(
            _("{path} holds the lab's own files: whoever sees them is the lab.").format(path=path),
            remedy=_("Name a folder that holds nothing of {state}.").format(state=lab.state),
        )
    if engine is not None and engine.resolve().is_relative_to(real):
        raise UsageError(
            _("{path} holds the container engine's socket: whoever reaches it is root here.").format(path=path),
            remedy=_("Name a folder that does not hold {socket}.").format(socket=engine),
        )


def _check(path: Path, *, read_only: bool) -> None:
    try:
        seen = path.stat()
        if not stat.S_ISDIR(seen.st_mode):
            raise UsageError(_("{path} is no folder.").format(path=path), remedy=_("Name the folder that it is in."))
        os.listdir(path)  # noqa: PTH208  whether it can be listed, nothing more
    except OSError as error:
        raise _unusable(path, error) from None
    if read_only or os.access(path, os.W_OK):
        return
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise UsageError(
            _("{path} is on a disk that is mounted read-only.").format(path=path),
            remedy=_("Say so: read_only = true"),
        )
    raise UsageError(
        _("{path} belongs to {owner} (mode {mode:o}), and the lab's account {account} may not write to it.").format(
            path=path, owner=_name(seen.st_uid), mode=stat.S_IMODE(seen.st_mode), account=account_name()
        ),
        remedy=_("Let it: chown {account} {path}; or say that nobody is to write: read_only = true").format(
            account=account_name(), path=path
        ),
    )


def _unusable(path: Path, error: OSError) -> AilabError:
    if error.errno in _STALE:
        return UsageError(
            _("The disk of {path} is gone: {reason}.").format(path=path, reason=error.strerror),
            remedy=_mount_again(path),
        )
    if isinstance(error, PermissionError):
        return UsageError(
            _("The lab's account {account} may not look into {path}.").format(account=account_name(), path=path),
            remedy=_("Let it: chmod o+rx {path}, and chmod o+x each folder above it").format(path=path),
        )
    return UsageError(
        _("There is no folder {path}.").format(path=path),
        remedy=_("Make it: mkdir -p {path}; or mount the disk that it is on").format(path=path),
    )


def _mount_again(path: Path) -> str:
    return _("Take it away and mount it again: umount -l {path}, then mount {path}").format(path=path)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def put(lab: LabPaths, name: str, mount: Mount) -> None:
    """Have a mount appear in the lab's folder by its name, as a link. Raises `UsageError` where something else stands
    at the place."""
    place = lab.root / name
    if place == Path(mount.path) or _leads_to(place, mount.path):
        return
    if place.is_symlink():
        place.unlink()
    elif place.is_dir() and not any(place.iterdir()):
        place.rmdir()
    elif place.exists():
        raise UsageError(
            _("{place} is there already, and a mount of that name would hide it.").format(place=place),
            remedy=_("Move what is in it to {path}, or choose another name.").format(path=mount.path),
        )
    place.symlink_to(mount.path)


def take_away(lab: LabPaths, name: str, path: str) -> None:
    """Remove the link to `path` that `put` made."""
    if _leads_to(lab.root / name, path):
        (lab.root / name).unlink()


def _leads_to(place: Path, path: str) -> bool:
    return place.is_symlink() and str(place.readlink()) == path
