"""Follows an image's build by what its builder prints: which step it is at, and on failure what that step printed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ailab.command import CommandFailed
from ailab.environments.uv_errors import explain
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.images.dockerfile import UV_CACHE

_NEEDED_MB = 4000
# Debian's mirrors have one version of a package, the newest.
_GONE = re.compile(r"^E: Version '(\S+)' for '(\S+)' was not found", re.MULTILINE)


class BuildFailed(AilabError):
    """A step of an image's build ended badly; `detail` is what it printed."""

    kind = "build"


@dataclass(frozen=True)
class Dialect:
    """How a builder prints: the line that begins a step (`place`, `verb`, `rest`), and a line that a step prints."""

    step: re.Pattern[str]
    output: re.Pattern[str]


# `#9 [5/9] RUN ...`, then `#9 12.3 what it prints`: its progress as "plain".
BUILDKIT = Dialect(
    re.compile(r"#\d+ \[(?:\S+ )?(?P<place>\d+/\d+)\] (?P<verb>\S+) ?(?P<rest>.*)"), re.compile(r"#\d+ \d+\.\d+ (.*)")
)
# `STEP 5/9: RUN ...`, then what it prints as it is; `--> ID` ends a step.
BUILDAH = Dialect(
    re.compile(r"STEP (?P<place>\d+/\d+): (?P<verb>\S+) ?(?P<rest>.*)"),
    re.compile(r"(?!--> |COMMIT|Error: |error building |subprocess exited |time=\")(.*)"),
)


class Steps:
    """`read` takes the builder's lines as they come, `failure` makes the error of a build that has ended badly."""

    def __init__(self, dialect: Dialect, tell: Callable[[str], None]) -> None:
        self._dialect = dialect
        self._tell = tell
        self._step = ""
        self._printed: list[str] = []

    def read(self, line: str) -> None:
        step = self._dialect.step.match(line)
        if step is not None:
            place, verb = step["place"], step["verb"]
            named = f"{place} {verb} {step['rest'].replace('--mount=', '').strip()}"
            if named != self._step:
                self._step, self._printed = named, []
            self._tell(f"{place} {verb}")
            return
        printed = self._dialect.output.match(line)
        if printed is not None and self._step:
            self._printed.append(printed[1])
            self._tell(f"{self._step.split(' ')[0]} {printed[1].strip()[:60]}")

    def failure(self, error: CommandFailed) -> AilabError:
        printed = "\n".join(self._printed) or error.detail
        known = explain(printed, index="", cache=Path(UV_CACHE), needed_mb=_NEEDED_MB)
        if known is not None:
            known.detail = known.detail or printed
            return known
        gone = _GONE.findall(printed)
        if gone:
            return BuildFailed(
                _("A Debian package in lab.lock is no longer to be had: {names}.").format(
                    names=", ".join(f"{name}={version}" for version, name in gone)
                ),
                remedy=_("Take today's: ailab image base"),
                detail=printed,
            )
        last = next((line for line in reversed(printed.splitlines()) if line.strip()), error.message)
        return BuildFailed(
            _("The image was not built. Step {step}: {last}").format(
                step=self._step.split(" ")[0] or "0", last=last.strip()
            ),
            remedy=_(
                "What the step printed is below. What was built so far is kept: the same command goes on from there."
            ),
            detail=printed if self._printed else error.detail,
        )
