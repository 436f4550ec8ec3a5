"""One file for a bug report: findings, versions, lab.toml, events, the ends of the logs. No secret is in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ailab.doctor.facts import Facts, matching
from ailab.doctor.findings import Result
from ailab.doctor.redaction import redact

LAST_LINES = 60
_LAST_BYTES = 64 * 1024


def compose(
    facts: Facts, results: Iterable[Result], versions: Mapping[str, str], events: Sequence[Mapping[str, Any]] | str
) -> str:
    """The report as Markdown, in English headings for who reads it. `events` is the newest ones, or why there are
    none. Everything passes `redact`."""
    parts = [
        "# ailab doctor's report",
        _block(f"{name}: {value}" for name, value in versions.items()),
        "## Findings",
        _block(line for result in results for line in _lines_of(result)),
        "## Network variables",
        _block(f"{name}={value}" for name, value in sorted(facts.network.items())),
    ]
    if facts.lab is not None:
        parts += ["## lab.toml", _block(_last(facts.lab.settings, None)), "## Events", _block(_events(events))]
    for log in _logs(facts):
        parts += [f"## {log}", _block(_last(log, LAST_LINES))]
    return redact("\n\n".join(parts) + "\n")


def _lines_of(result: Result) -> Iterator[str]:
    for finding in result.findings:
        yield f"{finding.severity:8} {result.name} ({result.seconds:.2f} s): {finding.message}"
        if finding.evidence:
            yield f"         seen: {finding.evidence}"
        if finding.remedy:
            yield f"         remedy: {finding.remedy}"


def _events(events: Sequence[Mapping[str, Any]] | str) -> Iterator[str]:
    if isinstance(events, str):
        yield events
        return
    for event in events:
        yield " ".join(str(event.get(key) or "-") for key in ("at", "actor", "kind", "subject", "before", "after"))


def _logs(facts: Facts) -> Iterator[Path]:
    """The logs there are: the daemon's, each task's and its shim's, the launcher's."""
    candidates = [facts.machine.control / "install.log"]
    if facts.lab is not None:
        candidates += [
            facts.lab.daemon_log,
            *matching(facts.lab.tasks, "*/log"),
            *matching(facts.lab.tasks, "*/shim.log"),
        ]
    for path in candidates:
        try:
            if path.stat().st_size:
                yield path
        except OSError:
            continue


def _last(path: Path, lines: int | None) -> list[str]:
    """The last lines of a file, all of them (up to 64 KiB) for None; why there are none where it cannot be read."""
    try:
        with path.open("rb") as source:
            size = source.seek(0, 2)
            source.seek(max(0, size - _LAST_BYTES))
            text = source.read().decode("utf-8", errors="replace")
    except OSError as refused:
        return [f"(cannot be read: {refused.strerror})"]
    found = text.splitlines()
    return found if lines is None else found[-lines:]


def _block(lines: Iterable[str]) -> str:
    """A code block; a fence longer than any that its lines hold."""
    text = "\n".join(lines)
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"
