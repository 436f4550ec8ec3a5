"""At the end of a run: its slowest tests, and the time of each group."""

from __future__ import annotations

from collections import Counter

import pytest
from groups import read_groups

_SHOWN = 10
_SECONDS: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up set-up, call and tear-down: a shared lab counts for the first test that uses it."""
    _SECONDS[report.nodeid] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if len(_SECONDS) <= _SHOWN:
        return
    known = read_groups(config)
    seconds_of: Counter[str] = Counter()
    tests_of: Counter[str] = Counter()
    for nodeid, seconds in _SECONDS.items():
        group = known.get(nodeid, "any worker")
        seconds_of[group] += seconds
        tests_of[group] += 1
    terminalreporter.section(f"the {_SHOWN} slowest tests")
    for nodeid, seconds in _SECONDS.most_common(_SHOWN):
        terminalreporter.line(f"{seconds:7.1f} s  {nodeid}")
    terminalreporter.section("time by group")
    for group, seconds in seconds_of.most_common():
        terminalreporter.line(f"{seconds:7.1f} s  {group} ({tests_of[group]})")
