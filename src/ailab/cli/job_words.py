"""What the commands of jobs share: whose they are, their states in words, refusals in the words that were typed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from ailab.errors import UsageError
from ailab.i18n import _
from ailab.jobs.gangs import Network
from ailab.paths import person

# As FastAPI places what it refuses, and as pydantic begins what our own checks say.
_PLACE = re.compile(r"^body\.wish\.(?P<key>\w+)(?:\.[\w.\[\]-]+)?: (?:Value error, )?(?P<what>.*)$", re.DOTALL)


def owner() -> str:
    """Whose the job is: the person of the workspace whose terminal this is, else who types."""
    return os.environ.get("JUPYTERHUB_USER") or person()


@contextmanager
def errors_as_typed(file: str) -> Iterator[None]:
    """A refusal of the daemon names the option that was typed, or the key of `file`."""
    try:
        yield
    except UsageError as refused:
        place = _PLACE.match(refused.message)
        if place is None:
            raise
        name = f"{file}: {place['key']}" if file else "--" + place["key"].replace("_", "-").replace("inputs", "input")
        raise UsageError(
            f"{name}: {place['what']}", remedy=refused.remedy or _("What it may be: ailab run --help")
        ) from None


def word(name: str) -> str:
    """A state, a reason, or what a job waits for, in the reader's language."""
    words = {
        "queued": _("queued"),
        "starting": _("starting"),
        "running": _("running"),
        "done": _("done"),
        "failed": _("failed"),
        "stopped": _("stopped"),
        "exit-status": _("exit status"),
        "out-of-memory": _("out of memory"),
        "gpus-lost": _("lost its GPUs"),
        "timeout": _("timed out"),
        "lost": _("lost"),
        "cannot-start": _("cannot start"),
        "never": _("what it is after"),
        "cpus": _("for CPUs"),
        "memory": _("for memory"),
        "gpus": _("for GPUs"),
        "turn": _("for its turn"),
        "time": _("for its time"),
        "jobs": _("for other jobs"),
        "private": _("private: reaches nothing else"),
        "open": _("open: others can reach its ports"),
    }
    return words.get(name, name)


def about_network(name: str) -> str:
    """What a person should know before workers that connect to each other start."""
    if name == Network.private:
        return _(
            "The workers share a private network: nobody else can reach their ports, and they can reach nothing else. "
            "If they need the network: --insecure-ports"
        )
    return _("The workers' ports are open, without a login, to other accounts and to whoever can reach this machine.")
