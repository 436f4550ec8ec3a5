"""`ailab top`: who holds what of the machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ailab.cli import labs
from ailab.cli.output import human_size, print_json, say, table
from ailab.i18n import _


def top(json: Annotated[bool, typer.Option("--json", help=_("Print one JSON object."))] = False) -> None:
    client = labs.open_lab().client
    found = client.get("/api/leases")
    if json:
        print_json(found)
    else:
        say(as_text(found))


def as_text(found: dict[str, Any]) -> str:
    """For a person, in 80 columns."""
    capacity, leases = found["capacity"], found["leases"]
    held = [sum(lease[key] for lease in leases) for key in ("cpus", "memory_bytes")]
    gpus = sum(gpu["share"] for lease in leases for gpu in lease["gpus"])
    lines = [
        _("CPUs     {held} of {all} held").format(held=held[0], all=capacity["cpus"]),
        _("Memory   {held} of {all} held").format(
            held=human_size(held[1]) if held[1] else "0", all=human_size(capacity["memory_bytes"])
        ),
    ]
    if capacity["gpus"]:
        lines.append(_("GPUs     {held} of {all} held").format(held=f"{gpus:g}", all=len(capacity["gpus"])))
    lines.append(_("Waiting  {count} jobs").format(count=found["counts"].get("queued", 0)))
    rows = [
        [
            lease["task"],
            lease["owner"],
            str(lease["cpus"]),
            human_size(lease["memory_bytes"]),
            ", ".join(f"{gpu['id']}" + (f" ({gpu['share']:.0%})" if gpu["share"] < 1 else "") for gpu in lease["gpus"])
            or "-",
        ]
        for lease in leases
    ]
    if rows:
        lines += ["", table([_("TASK"), _("USER"), _("CPUS"), _("MEMORY"), _("GPUS")], rows)]
    if found["usage"]:
        total = sum(found["usage"].values()) or 1.0
        shares = [[user, f"{used / total:.0%}"] for user, used in sorted(found["usage"].items())]
        lines += ["", table([_("USER"), _("SHARE OF LATE")], shares)]
    return "\n".join(lines)
