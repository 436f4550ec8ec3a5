"""What images are called and labelled: lab, stack and generation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_PREFIX = "org.ailab."
_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Labels:
    """What an image of ours says of itself: of which lab, stack, generation (as it is called in the image) and lock it
    is, by which ailab it was built, and the digest of all that went in."""

    lab: str
    stack: str
    generation: str
    lock: str
    version: str
    inputs: str = ""

    def to_labels(self) -> dict[str, str]:
        return {f"{_PREFIX}{name}": value for name, value in vars(self).items() if value}

    @classmethod
    def read(cls, labels: dict[str, Any] | None) -> Labels | None:
        """The labels of an image; None where it is not ours."""
        found = {name: str((labels or {}).get(f"{_PREFIX}{name}", "")) for name in cls.__dataclass_fields__}
        return cls(**found) if found["lock"] and found["generation"] else None


def label(name: str) -> str:
    return f"{_PREFIX}{name}"


def slug(lab: str) -> str:
    """A lab's name as a part of an image's: lower case letters, digits and dashes."""
    return _NOT_IN_NAMES.sub("-", lab.lower()).strip("-") or "lab"


def repository(lab: str, registry: str = "") -> str:
    """Where a lab's images are: `ailab/vision`, or in a registry `host:5000/team/vision`."""
    return f"{registry.rstrip('/') or 'ailab'}/{slug(lab)}"
