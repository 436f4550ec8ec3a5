"""What the other parts of ailab know best: settings and lock, the Python for the stack, the web port."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from ailab import dpkg, store_file
from ailab.doctor.facts import Facts, matching
from ailab.doctor.findings import Finding, error, fine, from_error, warning
from ailab.i18n import _
from ailab.paths import LabPaths


def settings(facts: Facts) -> Iterator[Finding]:
    facts.probes.settings()
    yield fine(_("Both can be read."), str(facts.lab.settings) if facts.lab else "")


def databases(facts: Facts) -> Iterator[Finding]:
    """Whether what the lab, its hub and MLflow have written down can still be what they wrote."""
    assert facts.lab is not None, "a check of labs"
    found = [*_damaged(facts.lab)]
    yield from found
    if not found:
        yield fine(_("They are whole."), str(facts.lab.database))


def _damaged(lab: LabPaths) -> Iterator[Finding]:
    if wrong := store_file.look_closely(lab.database):
        yield from_error(store_file.damaged(lab.database, wrong))
    for path in (lab.hub_database, lab.mlflow / "mlflow.db"):
        if wrong := store_file.look(path, empty=True):
            yield error(
                _("{path} is damaged: {why}.").format(path=path, why=wrong),
                remedy=_("Put a backup there, or move it aside (ailab up makes an empty one): {move}").format(
                    move=shlex.join(["mv", str(path), f"{path}.damaged"])
                ),
            )
    for path in matching(lab.secrets, "*"):
        if path.stat().st_size == 0:
            yield error(
                _("{path} is damaged: it holds no secret.").format(path=path),
                remedy=_("Have it made again, which logs everybody out: ailab down, then ailab up"),
            )


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
