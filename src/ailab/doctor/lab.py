"""What the other parts of ailab know best: settings and lock, the Python for the stack, the web port."""

from __future__ import annotations

from collections.abc import Iterator

from ailab import dpkg
from ailab.doctor.facts import Facts
from ailab.doctor.findings import Finding, fine, warning
from ailab.i18n import _


def settings(facts: Facts) -> Iterator[Finding]:
    facts.probes.settings()
    yield fine(_("Both can be read."), str(facts.lab.settings) if facts.lab else "")


def python(facts: Facts) -> Iterator[Finding]:
    """Whether an environment can be built on an interpreter that is here already."""
    found = facts.probes.python()
    if found:
        yield fine(found)
        return
    yield warning(
        _("No Python that the stack runs on is on this machine: it has to be fetched."),
        ", ".join(facts.pythons),
        _("ailab up fetches one. Without a network, install one of them on PATH or by pyenv."),
    )


def debian_packages(facts: Facts) -> Iterator[Finding]:
    """Of [environment] system: an image has them; without containers they are the machine's own."""
    names = facts.settings.environment.system
    if not names or facts.needs_engine:
        yield fine(_("Nothing that this machine would have to have."))
        return
    lacking = dpkg.missing(names, facts.read(dpkg.STATUS))
    if lacking:
        problem, remedy = dpkg.missing_told(lacking)
        yield warning(problem, f"/{dpkg.STATUS}", remedy)
    else:
        yield fine(_("They are here, or this is no Debian."), ", ".join(names))


def port(facts: Facts) -> Iterator[Finding]:
    facts.probes.port()
    access = facts.settings.access
    yield fine(_("Port {port} is free, or this lab's own.").format(port=access.port), f"{access.bind}:{access.port}")
