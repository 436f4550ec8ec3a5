"""The lab's own secrets, each a file that only its account can read, made once."""

from __future__ import annotations

import os
import secrets

from ailab.command import keep_secret
from ailab.paths import LabPaths

NAMES = ("cookie-secret", "proxy-token", "service-token")


def secret(lab: LabPaths, name: str) -> str:
    """The secret called `name` (64 hexadecimal digits), made when it is first asked for."""
    assert name in NAMES
    path = lab.secrets / name
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return keep_secret(path.read_text().strip())
    with os.fdopen(descriptor, "w") as sink:
        sink.write(secrets.token_hex(32))
    return keep_secret(path.read_text().strip())
