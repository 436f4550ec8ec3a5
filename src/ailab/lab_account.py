"""The account that a lab belongs to, and how root reads the lab's files: with the rights of that account."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ailab.errors import Conflict
from ailab.i18n import _
from ailab.paths import LabPaths


def account_of(lab: Path) -> pwd.struct_passwd | None:
    """The account that a lab belongs to already: who owns its state, if that is not root.

    Raises `Conflict` where the lab's folder is another account's: that one decides what is in it, and root would act
    for the owner of whatever was put there.
    """
    state = LabPaths(lab).state
    try:
        seen = state.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISDIR(seen.st_mode):
        raise Conflict(_("{path} is not a folder.").format(path=state), remedy=_("Look into it, and move it away."))
    if seen.st_uid == 0:
        return None
    if lab.stat().st_uid not in (0, seen.st_uid):
        raise Conflict(
            _("{lab} belongs to {one}, and the state in it to {other}.").format(
                lab=lab, one=_name(lab.stat().st_uid), other=_name(seen.st_uid)
            ),
            remedy=_("See whose lab it is, and give both to that account; or run ailab as that account."),
        )
    try:
        return pwd.getpwuid(seen.st_uid)
    except KeyError:
        return None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@contextmanager
def reading(lab: Path) -> Iterator[None]:
    """As root: within, files are opened with the rights of the account that may write the lab's settings, so that what
    they name (a link, a certificate, a stack) is nothing that only root may read. Else as usual.

    Before the lab has an account of its own, it is the owner of its folder.
    """
    if os.geteuid() != 0 or not lab.exists():
        yield
        return
    account = account_of(lab)
    if account is not None:
        with acting_as(account):
            yield
        return
    with acting_as_owner(lab):
        yield


@contextmanager
def acting_as_owner(folder: Path) -> Iterator[None]:
    """As root: within, files are opened, made and removed with the rights of who owns `folder`. Else as usual."""
    seen = folder.stat()
    with _rights_of(seen.st_uid if os.geteuid() == 0 else 0, seen.st_gid, [seen.st_gid]):
        yield


@contextmanager
def acting_as(account: pwd.struct_passwd) -> Iterator[None]:
    """As root: within, files are opened, made and removed with the rights of `account`."""
    with _rights_of(account.pw_uid, account.pw_gid, os.getgrouplist(account.pw_name, account.pw_gid)):
        yield


@contextmanager
def _rights_of(uid: int, gid: int, with_groups: list[int]) -> Iterator[None]:
    if uid == 0:
        yield
        return
    groups = os.getgroups()
    try:
        # The real and the saved uid stay root's: the account can neither signal this process nor look into it.
        os.setgroups(with_groups)
        os.setegid(gid)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
