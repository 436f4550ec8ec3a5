"""The lab's own secrets, each a file that only its account can read, made once."""

from __future__ import annotations

import os
import re
import secrets

from ailab import files
from ailab.command import keep_secret
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.paths import LabPaths

NAMES = ("cookie-secret", "proxy-token", "service-token")
_WHOLE = re.compile(r"[0-9a-f]{64}")


def secret(lab: LabPaths, name: str) -> str:
    """The secret called `name` (64 hexadecimal digits), made when it is first asked for. Raises `AilabError` for a file
    that holds no such secret: an empty one would open every door."""
    assert name in NAMES
    path = lab.secrets / name
    try:
        known = path.read_text(errors="replace").strip()
    except FileNotFoundError:
        unfinished = path.with_name(f".{name}.{os.getpid()}.{secrets.token_hex(4)}.new")
        files.replace(unfinished, secrets.token_hex(32), mode=0o600)
        try:
            # Not a rename: where another one makes it at the same time, the first counts.
            os.link(unfinished, path)
        except FileExistsError:
            pass
        finally:
            unfinished.unlink()
        known = path.read_text().strip()
    if not _WHOLE.fullmatch(known):
        raise AilabError(
            _("{path} is damaged: it holds no secret.").format(path=path),
            remedy=_("Have it made again, which logs everybody out: ailab down, then ailab up"),
        )
    return keep_secret(known)


def renewed(lab: LabPaths, name: str) -> str:
    """As `secret`, for the daemon's start: a damaged one is made again, and what uses it is started again with it."""
    try:
        return secret(lab, name)
    except AilabError:
        files.replace(lab.secrets / name, secrets.token_hex(32), mode=0o600)
        return secret(lab, name)
