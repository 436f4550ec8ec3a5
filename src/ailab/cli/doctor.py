"""`ailab doctor`: what is wrong with this machine and this lab, and what to type."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from ailab.cli import account, invocation, labs
from ailab.cli.output import as_typed, note, print_json, say, step, table
from ailab.errors import AilabError, Conflict, NotFound, UsageError
from ailab.i18n import _
from ailab.lab_account import account_of, acting_as
from ailab.paths import MachinePaths, locate_lab

if TYPE_CHECKING:
    from ailab.doctor.facts import Facts
    from ailab.doctor.findings import Finding, Fix, Result


def doctor(
    json: Annotated[bool, typer.Option("--json", help=_("Print one JSON object."))] = False,
    fix: Annotated[bool, typer.Option("--fix", help=_("Mend what can be mended safely, after asking."))] = False,
    yes: Annotated[bool, typer.Option("--yes", help=_("With --fix: do not ask."))] = False,
    report: Annotated[
        Path | None, typer.Option(help=_("Write a file for a bug report: findings, versions, logs; no secrets."))
    ] = None,
) -> int:
    from ailab.doctor.findings import Severity, worst

    if fix and not yes and (json or not sys.stdin.isatty()):
        raise UsageError(_("Nobody can be asked here."), remedy=_("Say yes beforehand: ailab doctor --fix --yes"))
    # Opened before root is given up: the place is the person's, not the lab's account's.
    sink = None if report is None else _open_report(report)
    facts, results = _examine()
    fixed: list[str] = []
    if fix:
        fixed = _mend(results, ask=not yes)
        if fixed:
            facts, results = _examine()
    if sink is not None:
        _write_report(sink, facts, results)
    if json:
        print_json(as_json(results, fixed) | {"report": str(report) if report else None})
    else:
        say(as_text(results, fixed))
        if report is not None:
            say(_("Wrote {path}.").format(path=report))
    return 1 if worst(results) == Severity.error else 0


def _examine() -> tuple[Facts, tuple[Result, ...]]:
    from ailab import checkup
    from ailab.doctor import redaction
    from ailab.doctor.table import checks_for, run

    facts = checkup.gather(_lab(), os.environ)
    redaction.learn_secrets(facts.lab, os.environ)
    with step(_("Examining")):
        return facts, run(checks_for(facts), facts)


def _lab() -> Path | None:
    """The lab to look at, as the account that it belongs to; None where there is none."""
    from ailab.lab import Lab

    try:
        root = locate_lab(invocation.current.lab, Path.cwd(), os.environ)
    except NotFound:
        return None
    owner = account_of(root) if os.geteuid() == 0 else None
    if owner is not None:
        account.become(owner, account.machine_of(owner), engine=True)
    with contextlib.suppress(AilabError):  # one of the findings
        labs.speaking(Lab.open(root))
    return root


def _mend(results: tuple[Result, ...], *, ask: bool) -> list[str]:
    """Do the safe fixes that the findings carry, each after a yes; what was done."""
    done = []
    for finding in _of(results):
        if finding.fix is None or (ask and not _agreed(finding, finding.fix)):
            continue
        try:
            with _owner_of_machine():
                finding.fix.do()
        except OSError as refused:
            note(_("This did not work: {what}: {reason}").format(what=finding.fix.what, reason=refused.strerror))
        else:
            done.append(finding.fix.what)
    return done


@contextmanager
def _owner_of_machine() -> Iterator[None]:
    """As root still, where the lab has no account yet: within, what AILAB_HOME's labs have is changed as theirs."""
    owner = account.machine_account(MachinePaths.from_environment(os.environ)) if os.geteuid() == 0 else None
    with acting_as(owner) if owner is not None else contextlib.nullcontext():
        yield


def _agreed(finding: Finding, fix: Fix) -> bool:
    note(finding.message)
    return bool(typer.confirm(_("Do this: {what}").format(what=fix.what), default=True, err=True))


def _of(results: tuple[Result, ...]) -> list[Finding]:
    return [finding for result in results for finding in result.findings]


def _open_report(path: Path) -> IO[str]:
    """A new file that only its owner can read; one that is there is never written over."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Conflict(
            _("{path} is there already.").format(path=path), remedy=_("Name a new file for the report.")
        ) from None
    except OSError as refused:
        raise AilabError(
            _("{path} cannot be written: {reason}.").format(path=path, reason=refused.strerror),
            remedy=_("Name a file in a folder of yours."),
        ) from None
    return os.fdopen(descriptor, "w", encoding="utf-8")


def _write_report(sink: IO[str], facts: Facts, results: tuple[Result, ...]) -> None:
    from ailab import checkup
    from ailab.doctor.report import compose

    events = checkup.newest_events(facts.lab) if facts.lab else []
    with sink:
        sink.write(compose(facts, results, checkup.versions(facts), events))


def as_json(results: tuple[Result, ...], fixed: list[str]) -> dict[str, Any]:
    """The documented shape: the worst severity, each check with its findings, what was fixed."""
    from ailab.doctor.findings import worst

    checks = [result.to_json() for result in results]
    for check in checks:
        for finding in check["findings"]:
            finding["remedy"] = as_typed(finding["remedy"])
    return {"worst": str(worst(results)), "checks": checks, "fixed": fixed}


def as_text(results: tuple[Result, ...], fixed: list[str]) -> str:
    """A line for each finding; below, what is wrong once more with what was seen and what to do."""
    from ailab.doctor.findings import Severity

    words = {Severity.ok: _("ok"), Severity.warning: _("WARNING"), Severity.error: _("ERROR")}
    rows = [
        [words[finding.severity], result.title, finding.message] for result in results for finding in result.findings
    ]
    lines = [table([_("STATE"), _("CHECK"), _("FINDING")], rows)]
    wrong = [
        (words[finding.severity], result.title, finding)
        for result in results
        for finding in result.findings
        if finding.severity != Severity.ok
    ]
    for word, title, finding in wrong:
        lines += ["", f"{word}: {title}: {finding.message}"]
        if finding.evidence:
            lines.append("  " + _("Seen: {evidence}").format(evidence=finding.evidence))
        if finding.remedy:
            lines.append("  " + _("What to do: {remedy}").format(remedy=finding.remedy))
        if finding.fix is not None:
            lines.append("  " + _("ailab doctor --fix does it."))
    lines += ["", *(_("Fixed: {what}").format(what=what) for what in fixed)]
    found = [finding.severity for finding in _of(results)]
    lines.append(
        _("{errors} errors, {warnings} warnings.").format(
            errors=found.count(Severity.error), warnings=found.count(Severity.warning)
        )
    )
    return "\n".join(lines)
