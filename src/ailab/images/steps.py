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

# With what is downloaded for it, which is kept for the next build.
_NEEDED_MB = 8000
# Debian's mirrors have one version of a package, the newest.
_GONE = re.compile(r"^E: Version '(\S+)' for '(\S+)' was not found", re.MULTILINE)


class BuildFailed(AilabError):
    """A step of an image's build ended badly; `detail` is what it printed."""

    kind = "build"


@dataclass(frozen=True)
class Dialect:
    """How a builder prints: the line that begins a step (`place`, `verb`, `rest`), a line that a step prints (`text`),
    and one that says that a step has failed. Where steps run side by side, each line has the `vertex` that it is of."""

    step: re.Pattern[str]
    output: re.Pattern[str]
    failed: re.Pattern[str]


# `#9 [ 5/19] RUN ...`, a stage's name before the 5 where it has one, then `#9 12.3 what it prints`: its progress as
# "plain".
BUILDKIT = Dialect(
    re.compile(r"#(?P<vertex>\d+) \[\S*? *(?P<place>\d+/\d+)\] (?P<verb>\S+) ?(?P<rest>.*)"),
    re.compile(r"#(?P<vertex>\d+) \d+\.\d+ (?P<text>.*)"),
    re.compile(r"#(?P<vertex>\d+) ERROR"),
)
# `STEP 5/9: RUN ...`, then what it prints as it is; `--> ID` ends a step.
BUILDAH = Dialect(
    re.compile(r"(?P<vertex>)(?:\[\d+/\d+\] )?STEP (?P<place>\d+/\d+): (?P<verb>\S+) ?(?P<rest>.*)"),
    re.compile(r"(?P<vertex>)(?!--> |COMMIT|Error: |error building |subprocess exited |time=\")(?P<text>.*)"),
    re.compile(r"(?P<vertex>)(?!)"),
)


@dataclass
class Step:
    """A step and what it has printed."""

    place: str
    named: str
    printed: list[str]


class Steps:
    """`read` takes the builder's lines as they come, `failure` makes the error of a build that has ended badly."""

    def __init__(self, dialect: Dialect, tell: Callable[[str], None]) -> None:
        self._dialect = dialect
        self._tell = tell
        self._steps: dict[str, Step] = {}
        self._last = Step("0", "", [])

    def read(self, line: str) -> None:
        if (step := self._dialect.step.match(line)) is not None:
            named = f"{step['place']} {step['verb']} {step['rest'].replace('--mount=', '').strip()}"
            known = self._steps.get(step["vertex"])
            if known is None or known.named != named:
                self._steps[step["vertex"]] = self._last = Step(step["place"], named, [])
            self._tell(f"{step['place']} {step['verb']}")
        elif (failed := self._dialect.failed.match(line)) is not None:
            self._last = self._steps.get(failed["vertex"], self._last)
        elif (printed := self._dialect.output.match(line)) is not None and (of := self._steps.get(printed["vertex"])):
            of.printed.append(printed["text"])
            self._tell(f"{of.place} {printed['text'].strip()[:60]}")

    def failure(self, error: CommandFailed) -> AilabError:
        printed = "\n".join(self._last.printed) or error.detail
        # Said by what the step ran, or by the builder itself while it keeps a layer.
        for said in (printed, error.detail):
            if "no space left on device" in said.lower():
                return BuildFailed(
                    _("The image was not built: the disk that it is built on is full."),
                    remedy=_(
                        "It needs up to {megabytes} MB. See what takes room: docker system df; free some: docker "
                        "builder prune, docker image prune (Podman: podman system prune)"
                    ).format(megabytes=_NEEDED_MB),
                    detail=said,
                )
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
            _("The image was not built. Step {step}: {last}").format(step=self._last.place, last=last.strip()),
            remedy=_(
                "What the step printed is below. What was built so far is kept: the same command goes on from there."
            ),
            detail=printed if self._last.printed else error.detail,
        )
