"""`ailab env list | diff | pin | unpin | gc`: the generations of this machine, and which of them stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ailab.cli import labs
from ailab.cli.env_check import chosen
from ailab.cli.output import human_size, note, print_json, say, step, table
from ailab.i18n import _
from ailab.paths import account_name

if TYPE_CHECKING:
    from ailab.environments.collection import Collected, Kept
    from ailab.environments.generations import Generation
    from ailab.lab import Lab

Json = Annotated[bool, typer.Option("--json", help=_("Print JSON."))]
Named = Annotated[str, typer.Argument(help=_("Its name, as env list shows it."))]


def register(app: typer.Typer) -> None:
    app.command("list", help=_("The generations of this machine."))(list_generations)
    app.command("diff", help=_("What is different between two generations."))(diff)
    app.command("pin", help=_("Keep a generation, whatever env gc takes away."))(pin)
    app.command("unpin", help=_("Let env gc take a generation away again."))(unpin)
    app.command("gc", help=_("Take away the generations that no lab, pin or process needs."))(collect)


def list_generations(json: Json = False) -> None:
    lab = labs.open_lab()
    found = described(lab)
    if json:
        print_json([{key: value for key, value in one.items() if key != "summary"} for one in found])
        return
    headings = ["", _("GENERATION"), "PYTHON", _("BUILT (UTC)"), _("SIZE"), _("WHY")]
    lines = table(headings, [_row(one) for one in found]).splitlines()
    for one, line in zip(found, lines[1:], strict=True):
        said = [one["summary"], _("pinned by {who}").format(who=one["pinned"]) if one["pinned"] else ""]
        lines[lines.index(line)] = "\n".join([line, *(f"     {text}" for text in said if text)])
    say("\n".join(lines))


def _row(one: dict[str, Any]) -> list[str]:
    built = one["built_at"][:16].replace("T", " ")
    return [
        "*" if one["current"] else "",
        one["id"],
        one["python"],
        built,
        human_size(one["size_bytes"]),
        one["why"] or "",
    ]


def described(lab: Lab) -> list[dict[str, Any]]:
    """Each generation, oldest first, with why and since when this lab uses it, what changed, and who needs it."""
    from ailab.environments.changes import changes
    from ailab.environments.collection import Pins
    from ailab.environments.labs import Labs

    found = lab.generations.list()
    current, pins, known = lab.generations.current(), Pins(lab.machine), Labs(lab.machine).known()
    uses = {entry["to"]: entry for entry in lab.generations.history()}
    described = []
    for one in found:
        before = _before(one, found, lab.generations.history())
        changed = None if before is None else changes(before, one)
        use = uses.get(one.id, {})
        described.append(
            one.to_json()
            | {
                "current": current is not None and one.id == current.id,
                "why": use.get("why"),
                "who": use.get("who"),
                "used_at": use.get("at"),
                "labs": [str(other.root) for other in known if other.generation == one.id],
                "pinned": pins.who(one.id),
                "changed": None if changed is None else changed.to_json(),
                "summary": "" if changed is None else changed.summary(),
            }
        )
    return described


def _before(one: Generation, found: list[Generation], history: tuple[dict[str, Any], ...]) -> Generation | None:
    """The one that `one` followed: what this lab used when it came to `one` first; else the stack's next older one."""
    there = {other.id: other for other in found}
    first = next((entry.get("from") for entry in history if entry.get("to") == one.id), None)
    older = [other for other in found[: found.index(one)] if other.stack == one.stack]
    return there.get(str(first)) or (older[-1] if older else None)


def diff(
    a: Annotated[str, typer.Argument(help=_("The one before, as env list shows it."))],
    b: Annotated[str, typer.Argument(help=_("The one after; without it, the one in use."))] = "",
    json: Json = False,
) -> None:
    from ailab.environments.changes import changes

    lab = labs.open_lab()
    found = changes(lab.generations.get(a), chosen(lab, b))
    if json:
        print_json(found.to_json())
        return
    lines = found.lines()
    if found.lock:
        lines.append(_("~ lock {before} -> {after}").format(before=found.lock[0][:8], after=found.lock[1][:8]))
    say("\n".join(lines) or _("no difference"))


def pin(generation: Named, json: Json = False) -> None:
    from ailab.environments.collection import Pins

    lab = labs.open_lab()
    Pins(lab.machine).pin(lab.generations.get(generation), who=account_name())
    _pinned(generation, _("{id} stays until: ailab env unpin {id}").format(id=generation), pinned=True, json=json)


def unpin(generation: Named, json: Json = False) -> None:
    from ailab.environments.collection import Pins

    lab = labs.open_lab()
    Pins(lab.machine).unpin(lab.generations.get(generation))
    _pinned(generation, _("{id} is not pinned.").format(id=generation), pinned=False, json=json)


def _pinned(generation: str, text: str, *, pinned: bool, json: bool) -> None:
    if json:
        print_json({"id": generation, "pinned": pinned})
    else:
        say(text)


def collect(
    dry_run: Annotated[bool, typer.Option("--dry-run", help=_("Only say what would go."))] = False,
    everything: Annotated[bool, typer.Option("--all", help=_("Also those that a lab could roll back to."))] = False,
    cache: Annotated[
        bool, typer.Option("--cache", help=_("Also drop the downloads of packages that no generation has then."))
    ] = False,
    json: Json = False,
) -> None:
    from ailab.environments import collection

    lab = labs.open_lab()
    with step(_("Looking what is needed") if dry_run else _("Taking away what nobody needs")):
        done = collection.collect(lab.machine, lab.generations, dry_run=dry_run, with_previous=everything)
        if cache:
            done = _with_cache(lab, done)
    if json:
        print_json(done.to_json())
    else:
        say("\n".join(as_text(done)))
        if not cache and done.removed:
            note(_("Their downloads stay, for a build without a network. To drop these too: ailab env gc --cache"))


def _with_cache(lab: Lab, done: Collected) -> Collected:
    from dataclasses import replace

    from ailab.environments import collection
    from ailab.environments.uv import Uv

    going = {one.id for one in done.removed}
    remaining = [one for one in lab.generations.list() if one.id not in going]
    unused = collection.unused_downloads(lab.machine, remaining)
    if done.dry_run:
        return replace(done, cache_packages=unused)
    freed = collection.drop_downloads(lab.machine, unused, Uv(lab.machine, lab.settings.mirrors))
    return replace(done, cache_packages=unused, cache_freed_bytes=freed)


def as_text(done: Collected) -> list[str]:
    """What went and what stays, each with its reasons, and the bytes."""
    gone = _("would go: {id} ({size})") if done.dry_run else _("gone: {id} ({size})")
    lines = [gone.format(id=one.id, size=human_size(one.freed_bytes)) for one in done.removed]
    reasons: dict[str, list[str]] = {}
    for kept in done.kept:
        reasons.setdefault(kept.id, []).append(_reason(kept))
    lines += [_("stays: {id} ({why})").format(id=one, why="; ".join(why)) for one, why in reasons.items()]
    if done.cache_packages:
        words = (
            _("Would drop the downloads of {count} packages.")
            if done.dry_run
            else _("Dropped the downloads of {count} packages.")
        )
        lines.append(words.format(count=len(done.cache_packages)))
    total = _("Would free {size}.") if done.dry_run else _("Freed {size}.")
    return [*lines, total.format(size=human_size(done.freed_bytes))]


def _reason(kept: Kept) -> str:
    return {
        "current": _("in use in {who}"),
        "previous": _("{who} can roll back to it"),
        "pinned": _("pinned by {who}"),
        "running": _("process {who} runs from it"),
        "building": _("it is being built"),
    }[kept.reason].format(who=kept.who)
