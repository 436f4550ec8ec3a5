"""What a check says: findings, how bad they are, and what would mend them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ailab.errors import AilabError

if TYPE_CHECKING:
    from ailab.doctor.facts import Facts


class Severity(StrEnum):
    """`warning`: the lab works, but not as well as it could, or not for long. `error`: something does not work."""

    ok = "ok"
    warning = "warning"
    error = "error"


@dataclass(frozen=True)
class Fix:
    """A safe way to mend a finding: the command that it stands for, and the doing."""

    what: str
    do: Callable[[], None] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Finding:
    """One thing that a check saw. `evidence` is what it read or was told, `remedy` what to type or change."""

    severity: Severity
    message: str
    evidence: str = ""
    remedy: str = ""
    fix: Fix | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "severity": str(self.severity),
            "message": self.message,
            "evidence": self.evidence,
            "remedy": self.remedy,
            "fix": self.fix.what if self.fix else None,
        }


@dataclass(frozen=True)
class Check:
    """One line of the table: the name that JSON shows, the title that people read, and what looks."""

    name: str
    title: str
    look: Callable[[Facts], Iterable[Finding]]


@dataclass(frozen=True)
class Result:
    """What one check said, and the seconds that it took."""

    name: str
    title: str
    findings: tuple[Finding, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        findings = [finding.to_json() for finding in self.findings]
        return {"name": self.name, "title": self.title, "seconds": round(self.seconds, 2), "findings": findings}


def fine(message: str, evidence: str = "") -> Finding:
    return Finding(Severity.ok, message, evidence)


def warning(message: str, evidence: str = "", remedy: str = "", fix: Fix | None = None) -> Finding:
    return Finding(Severity.warning, message, evidence, remedy, fix)


def error(message: str, evidence: str = "", remedy: str = "", fix: Fix | None = None) -> Finding:
    return Finding(Severity.error, message, evidence, remedy, fix)


def from_error(refused: AilabError) -> Finding:
    """What another part of ailab refuses, as a finding: its own cause and remedy."""
    last_line = (refused.detail.strip().splitlines() or [""])[-1]
    return error(refused.message, last_line, refused.remedy)


def worst(results: Iterable[Result]) -> Severity:
    """The worst severity of all findings; `ok` when there is none."""
    order = list(Severity)
    found = [finding.severity for result in results for finding in result.findings]
    return max(found, key=order.index, default=Severity.ok)
