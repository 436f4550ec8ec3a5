"""What the commands of jobs share: whose they are, and refusals in the words that were typed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from ailab.errors import UsageError
from ailab.i18n import _
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
