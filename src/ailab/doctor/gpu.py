"""The GPU as the doctor tells of it: what is seen of the driver, and how bad that is by lab.toml's wish."""

from __future__ import annotations

from collections.abc import Iterator

from ailab.doctor.facts import Facts
from ailab.doctor.findings import Finding, error, fine, warning
from ailab.i18n import _


def chain(facts: Facts) -> Iterator[Finding]:
    """No GPU is no fault, unless lab.toml requires one. A GPU that is there and cannot be used is."""
    wish = facts.settings.environment.gpu
    seen = facts.probes.graphics()
    if not seen.there:
        yield from _none(wish)
    elif seen.why_not is None:
        yield fine(", ".join(seen.gpus), seen.evidence)
    else:
        message, remedy = seen.why_not
        if wish == "off":
            yield fine(message, _("not wanted: [environment] gpu is off"))
        else:
            tell = error if wish == "required" else warning
            yield tell(message, seen.evidence, remedy)


def _none(wish: str) -> Iterator[Finding]:
    if wish == "required":
        yield error(
            _("There is no NVIDIA GPU on this machine, and lab.toml requires one."),
            '[environment] gpu = "required"',
            _('Set [environment] gpu = "auto" in lab.toml, or use a machine with a GPU.'),
        )
    else:
        yield fine(_("No NVIDIA GPU: computing on the CPU."))
