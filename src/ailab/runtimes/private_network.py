"""Whether the tasks of a gang can have a network of their own on this machine: tried, as their shims would do it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ailab import command
from ailab.errors import Conflict
from ailab.i18n import _

SHIM = Path(__file__).with_name("shim.py")
TRY_SECONDS = 10.0
# What may forbid it, the value that does, and one that allows it.
_SETTINGS = (
    ("user.max_user_namespaces", "0", "10000"),
    ("user.max_net_namespaces", "0", "10000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)


class NoPrivateNetwork(Conflict):
    """The machine does not let an account make one."""

    kind = "no-private-network"


def refusal() -> NoPrivateNetwork | None:
    """Why not, and what to do; None where they can."""
    words: list[str | Path] = [sys.executable, "-I", "-S", SHIM, "--try-network"]
    tried = command.run(words, timeout=TRY_SECONDS, env={"PATH": os.defpath}, check=False)
    if tried.status == 0:
        return None
    message = _("Workers that connect to each other cannot have a private network here: {reason}.")
    for name, forbids, allows in _SETTINGS:
        if _value(name) == forbids:
            remedy = _(
                "Allow it: sudo sysctl {name}={value}; or start the workers without one, with their ports open to "
                "others: --insecure-ports"
            )
            return NoPrivateNetwork(
                message.format(reason=f"{name} = {forbids}"),
                remedy=remedy.format(name=name, value=allows),
                detail=tried.output,
            )
    remedy = _(
        "Allow user namespaces to ordinary accounts (in a container its seccomp profile decides); or start the workers "
        "without one, with their ports open to others: --insecure-ports"
    )
    return NoPrivateNetwork(message.format(reason=tried.output or tried.status), remedy=remedy)


def _value(name: str) -> str:
    try:
        return Path("/proc/sys", *name.split(".")).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
