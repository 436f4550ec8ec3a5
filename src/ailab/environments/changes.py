"""What is different between two generations: packages added, removed and moved, the Python, the lock."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ailab.environments.generations import Generation
from ailab.i18n import _

_FEW = 4


@dataclass(frozen=True)
class Changes:
    """`added` and `removed` are name -> version; the others are (before, after), None where nothing changed."""

    before: str
    after: str
    added: dict[str, str]
    removed: dict[str, str]
    moved: dict[str, tuple[str, str]]
    python: tuple[str, str] | None
    lock: tuple[str, str] | None

    def lines(self) -> list[str]:
        """One change a line, marked as `diff` does: + added, - removed, ~ moved."""
        lines = [f"+ {name} {version}" for name, version in self.added.items()]
        lines += [f"- {name} {version}" for name, version in self.removed.items()]
        lines += [f"~ {name} {old} -> {new}" for name, (old, new) in self.moved.items()]
        if self.python:
            lines.append("~ Python {} -> {}".format(*self.python))
        return lines

    def summary(self) -> str:
        """The first few changes in one line; empty when nothing a person can see has changed."""
        lines = self.lines()
        text = ", ".join(lines[:_FEW])
        rest = len(lines) - _FEW
        return text if rest <= 0 else _("{some} and {count} more").format(some=text, count=rest)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def changes(before: Generation, after: Generation) -> Changes:
    """What `after` has and `before` has not, and the other way round."""
    old, new = before.packages, after.packages
    return Changes(
        before=before.id,
        after=after.id,
        added={name: new[name] for name in sorted(new.keys() - old.keys())},
        removed={name: old[name] for name in sorted(old.keys() - new.keys())},
        moved={name: (old[name], new[name]) for name in sorted(old.keys() & new.keys()) if old[name] != new[name]},
        python=None if before.python == after.python else (before.python, after.python),
        lock=None if before.lock == after.lock else (before.lock, after.lock),
    )
