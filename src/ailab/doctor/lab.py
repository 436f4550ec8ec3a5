"""What the other parts of ailab know best: settings and lock, the Python for the stack, the web port."""

from __future__ import annotations

from collections.abc import Iterator

from ailab.doctor.facts import Facts
from ailab.doctor.findings import Finding, fine
from ailab.i18n import _


def settings(facts: Facts) -> Iterator[Finding]:
    facts.probes.settings()
    yield fine(_("Both can be read."), str(facts.lab.settings) if facts.lab else "")


def python(facts: Facts) -> Iterator[Finding]:
    """Whether an environment can be built on an interpreter that is here already."""
    yield fine(facts.probes.python())


def port(facts: Facts) -> Iterator[Finding]:
    facts.probes.port()
    access = facts.settings.access
    yield fine(_("Port {port} is free, or this lab's own.").format(port=access.port), f"{access.bind}:{access.port}")
