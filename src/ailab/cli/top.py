"""`ailab top`: who holds what of the machine, and how much of it they use; once, or live."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ailab.cli import labs, watching
from ailab.cli.output import human_size, print_json, say, table
from ailab.i18n import _


def top(
    watch: Annotated[bool, typer.Option("--watch", "-w", help=_("Go on showing, until Ctrl-C."))] = False,
    json: Annotated[bool, typer.Option("--json", help=_("Print one JSON object."))] = False,
) -> None:
    client = labs.open_lab().client
    if json:
        print_json(client.get("/api/leases"))
    elif watch:
        watching.watch(lambda: as_text(client.get("/api/leases")))
    else:
        say(as_text(client.get("/api/leases")))


def as_text(found: dict[str, Any]) -> str:
    """For a person, in 80 columns."""
    capacity, leases = found["capacity"], found["leases"]
    held = [sum(lease[key] for lease in leases) for key in ("cpus", "memory_bytes")]
    gpus = sum(gpu["share"] for lease in leases for gpu in lease["gpus"])
    lines = [
        _("CPUs     {held} of {all} held").format(held=held[0], all=capacity["cpus"]),
        _("Memory   {held} of {all} held").format(held=_size(held[1]), all=human_size(capacity["memory_bytes"])),
    ]
    if capacity["gpus"]:
        lines.append(_("GPUs     {held} of {all} held").format(held=f"{gpus:g}", all=len(capacity["gpus"])))
    lines.append(_("Waiting  {count} jobs").format(count=found["counts"].get("queued", 0)))
    if leases:
        headings = [_("TASK"), _("USER"), _("CPUS"), _("LOAD"), _("MEMORY"), _("USED"), _("GPUS")]
        lines += ["", table(headings, [_row(lease) for lease in leases])]
    if found["gpus"]:
        headings = [_("GPU"), _("LOAD"), _("MEMORY"), _("USED"), _("NAME")]
        lines += ["", table(headings, [_gpu_row(gpu) for gpu in found["gpus"]])]
    if found["usage"]:
        total = sum(found["usage"].values()) or 1.0
        shares = [[user, f"{used / total:.0%}"] for user, used in sorted(found["usage"].items())]
        lines += ["", table([_("USER"), _("SHARE OF LATE")], shares)]
    for one in found["notes"]:
        lines += ["", f"{one['task']}: {one['note']}"]
    return "\n".join(lines)


def _row(lease: dict[str, Any]) -> list[str]:
    shares = [f"{gpu['id']}" + (f" ({gpu['share']:.0%})" if gpu["share"] < 1 else "") for gpu in lease["gpus"]]
    return [
        lease["task"],
        lease["owner"],
        str(lease["cpus"]),
        _percent(lease["cpu_percent"]),
        _size(lease["memory_bytes"]),
        _size(lease["memory_used_bytes"]),
        ", ".join(shares) or "-",
    ]


def _gpu_row(gpu: dict[str, Any]) -> list[str]:
    used = gpu["memory_used_bytes"]
    return [gpu["id"], _percent(gpu["percent"]), human_size(gpu["memory_bytes"]), _size(used), gpu["name"][:30]]


def _percent(value: float | None) -> str:
    """Of one CPU, as top(1) counts: two that are busy are 200%."""
    return "-" if value is None else f"{value:.0f}%"


def _size(count: int | None) -> str:
    return "-" if count is None else human_size(count) if count else "0"
