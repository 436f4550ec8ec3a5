"""`ailab status`: what runs, where, and how it is."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ailab import place
from ailab.cli import labs
from ailab.cli.output import human_size, print_json, say, table
from ailab.client import Client
from ailab.errors import NotRunning
from ailab.i18n import _

if TYPE_CHECKING:
    from ailab.lab import Lab

# Together less than the 30 s that a container's engine gives to its health check.
CHECK_ANSWER_SECONDS = 8.0
CHECK_SECONDS = 20.0

_COLUMNS = 80


def status(
    check: Annotated[
        bool, typer.Option("--check", help=_("Also start a kernel; fail unless the lab is ready and it answers."))
    ] = False,
    json: Annotated[bool, typer.Option("--json", help=_("Print one JSON object."))] = False,
) -> None:
    lab = labs.open_lab()
    client = Client(lab.paths.daemon_socket, timeout=CHECK_ANSWER_SECONDS) if check else lab.client
    try:
        if place.moved_from(lab.paths) is not None:
            raise NotRunning("The daemon that answers runs at the lab's old place.")
        document = client.get("/api/status")
    except NotRunning:
        from ailab.daemon.status import stopped_status

        document = stopped_status(lab)
    if check:
        answered = _check(lab, document["state"])
        document |= {"kernel": answered}
    if json:
        print_json(document)
    else:
        say(as_text(document))


def _check(lab: Lab, state: str) -> str:
    """What a fresh kernel of the lab computed. Raises `NotRunning` where the lab is not ready."""
    from ailab.environments.kernel import run_cell

    generation = lab.generations.current()
    if state != "ready" or generation is None:
        raise NotRunning(_("The lab is not ready: {state}.").format(state=state), remedy="ailab up")
    return run_cell(generation, lab.paths, "print(6 * 7)", timeout=CHECK_SECONDS).strip()


def as_text(document: dict[str, Any]) -> str:
    """The status document for a person, in 80 columns."""
    states = {
        "ready": _("ready"),
        "starting": _("starting"),
        "degraded": _("degraded"),
        "stopped": _("stopped"),
    }
    lab, environment = document["lab"], document["environment"]
    lines = [
        _("Lab {name}: {state}").format(name=lab["name"], state=states[document["state"]]),
        "  " + _("Address      {url}").format(url=document["url"]),
        "  " + _("Folder       {root}").format(root=lab["root"]),
        "  " + _("Environment  {environment}").format(environment=_environment(environment)),
        "  " + _("GPU          {gpus}").format(gpus=_gpus(document["gpus"])),
    ]
    if document["kernels"]:
        lines.append("  " + _("Kernels      {kernels}").format(kernels="\n               ".join(_kernels(document))))
    if document["tasks"]:
        rows = [_row(task) for task in document["tasks"]]
        headings = [_("TASK"), _("KIND"), _("STATE"), _("PID"), _("ACCOUNT"), _("MEMORY")]
        lines += ["", table(headings, rows)]
    for one in (document, *document["tasks"]):
        if one.get("note"):
            lines += ["", *textwrap.wrap(one["note"], _COLUMNS)]
    for sentence in _faults(document):
        lines += ["", *textwrap.wrap(sentence, _COLUMNS)]
    if document["mlflow"]["note"]:
        lines += ["", *textwrap.wrap(_("MLflow: {note}").format(note=document["mlflow"]["note"]), _COLUMNS)]
    if document["state"] == "stopped":
        lines += ["", _("Start it: ailab up")]
    return "\n".join(lines)


def _faults(document: dict[str, Any]) -> Iterator[str]:
    """What fails in the daemon, and which of its loops has ended."""
    for fault in document["faults"]:
        yield _("{what} fails since {since}: {reason}").format(
            what=fault["what"], since=fault["since"], reason=fault["error"]
        )
    for row in document["unreadable"]:
        yield _("{what} cannot be read: {reason}").format(**row) + f" {row['remedy']}"
    if dead := ", ".join(loop["name"] for loop in document["loops"] if loop["state"] == "dead"):
        yield _("Loops of the daemon have ended: {names}. Replace the daemon: ailab up").format(names=dead)


def _environment(environment: dict[str, Any] | None) -> str:
    if environment is None:
        return _("not built yet")
    return f"{environment['stack']}, Python {environment['python']} ({environment['id']})"


def _kernels(document: dict[str, Any]) -> list[str]:
    """One line for each generation that kernels are open in."""
    return [
        (_("{count} open") if one["current"] else _("{count} in {generation} (restart for the new one)")).format(
            count=one["count"], generation=one["generation"]
        )
        for one in document["kernels"]
    ]


def _gpus(gpus: list[dict[str, Any]]) -> str:
    if not gpus:
        return _("none that this account can see")
    return ", ".join(f"{gpu['name']} ({human_size(gpu['memory_bytes'])})" for gpu in gpus)


def _row(task: dict[str, Any]) -> list[str]:
    memory, limit = task.get("memory_bytes"), (task.get("limits") or {}).get("memory_bytes")
    return [
        task["name"],
        task["kind"],
        task["state"],
        str(task["pid"] or "-"),
        task["account"] or "-",
        _memory(memory, limit) if memory else "-",
    ]


def _memory(used: int, limit: int | None) -> str:
    if not limit:
        return human_size(used)
    return _("{used} of {limit}").format(used=human_size(used), limit=human_size(limit))
