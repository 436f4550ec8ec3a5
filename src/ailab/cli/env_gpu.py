"""`ailab env gpu`: whether the lab's environment computes on the GPU, and which link of the chain is broken if not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ailab.cli import labs
from ailab.cli.env_check import installed
from ailab.cli.output import print_json, say, step
from ailab.i18n import _

if TYPE_CHECKING:
    from ailab.environments.gpu import Check


def gpu(json: Annotated[bool, typer.Option("--json", help=_("Print JSON."))] = False) -> None:
    """Exits with 1 when the GPU does not work."""
    from ailab import preflight, provision

    lab = labs.open_lab()
    generation = installed(lab, "")
    with step(_("Trying the GPU")):
        checks, seen = preflight.examine(generation, provision.stack_of(lab, generation))
    document = preflight.to_json(lab.settings.environment.gpu, generation, checks, seen)
    if json:
        print_json(document)
    else:
        say("\n".join(line for check in checks for line in as_lines(check)))
    raise typer.Exit(0 if document["ok"] else 1)


def as_lines(check: Check) -> list[str]:
    """A check for a person: its state and what was found, and below it what to do."""
    names = {
        "driver": _("Driver"),
        "libraries": _("Libraries"),
        "capability": _("Compute capability"),
        "operation": _("Real operation"),
    }
    states = {"passed": _("ok"), "warning": _("slow"), "failed": _("no"), "skipped": "-"}
    lines = [f"{states[check.state]:<5} {names[check.name]}: {check.message}"]
    if check.remedy:
        lines.append("      " + _("What to do: {remedy}").format(remedy=check.remedy))
    return lines
