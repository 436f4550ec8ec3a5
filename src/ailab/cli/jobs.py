"""`ailab jobs`: what waits, what runs, what has ended; once, or live."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from ailab.cli import labs, watching
from ailab.cli.job_words import word
from ailab.cli.jobs_compare import compare
from ailab.cli.output import print_json, say, table
from ailab.i18n import _

_STATE_WIDTH = 20


def app() -> typer.Typer:
    group = typer.Typer(no_args_is_help=False, rich_markup_mode=None)
    group.callback(invoke_without_command=True)(jobs)
    group.command("show", help=_("All about one job."))(show)
    group.command("diff", help=_("What the second job has run otherwise than the first."))(diff)
    group.command("compare", help=_("Several jobs beside each other: what differs, what their metrics came to."))(
        compare
    )
    return group


def jobs(
    context: typer.Context,
    state: Annotated[str, typer.Option(help=_("Only those: queued, running, done, failed, stopped."))] = "",
    user: Annotated[str, typer.Option(help=_("Only of that user."))] = "",
    name: Annotated[str, typer.Option(help=_("Only those with that in their name."))] = "",
    limit: Annotated[int, typer.Option(help=_("How many, the newest first."), min=1)] = 20,
    watch: Annotated[bool, typer.Option("--watch", "-w", help=_("Go on showing, until Ctrl-C."))] = False,
    schedules: Annotated[bool, typer.Option("--schedules", help=_("What is run again and again instead."))] = False,
    json: Annotated[bool, typer.Option("--json", help=_("Print one JSON object."))] = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    lab = labs.open_lab()
    if schedules:
        found = lab.client.get("/api/schedules")
        if json:
            print_json(found)
        else:
            say(schedules_as_text(found))
        return
    query = f"/api/jobs?state={state}&owner={user}&name={name}&limit={limit}"
    if watch and not json:
        watching.watch(lambda: as_text(lab.client.get(query)))
        return
    found = lab.client.get(query)
    if json:
        print_json(found)
    else:
        say(as_text(found))


def show(
    job: Annotated[int, typer.Argument(metavar="JOB", help=_("Its number."))],
    json: Annotated[bool, typer.Option("--json", help=_("Print one JSON object."))] = False,
) -> None:
    found = labs.open_lab().client.get(f"/api/jobs/{job}")
    if json:
        print_json(found)
    else:
        say(job_as_text(found))


def diff(
    first: Annotated[int, typer.Argument(metavar="A", help=_("Its number."))],
    second: Annotated[int, typer.Argument(metavar="B", help=_("Its number."))],
    json: Annotated[bool, typer.Option("--json", help=_("Print one JSON object."))] = False,
) -> None:
    found = labs.open_lab().client.get(f"/api/jobs/{first}/diff/{second}")
    if json:
        print_json(found)
        return
    from ailab.jobs import differences_text
    from ailab.jobs.differences import Differences

    say("\n".join(differences_text.lines(Differences.from_json(found))))


def as_text(found: dict[str, Any]) -> str:
    """The list for a person, in 80 columns."""
    if not found["jobs"]:
        return _("No jobs. Run one: ailab run -- python train.py")
    rows = [
        [str(job["id"]), _short(job["name"], 22), job["owner"], _state(job), _since(job), _asked(job["asked"])]
        for job in found["jobs"]
    ]
    lines = [table([_("JOB"), _("NAME"), _("USER"), _("STATE"), _("TIME"), _("HOLDS")], rows)]
    far = [job for job in found["jobs"] if job["progress"] and job["state"] == "running"]
    lines += ["", *(f"{job['id']}  {job['progress']['text']}" for job in far)] if far else []
    shown = len(found["jobs"])
    total = sum(found["counts"].values())
    if shown < total:
        counts = ", ".join(f"{count} {word(state)}" for state, count in sorted(found["counts"].items()))
        lines += ["", _("{shown} of {total} ({counts}). More: --limit").format(shown=shown, total=total, counts=counts)]
    return "\n".join(lines)


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _state(job: dict[str, Any]) -> str:
    """The state, and in a word why it is so."""
    state = _("stopping") if job["stopping"] else word(job["state"])
    why = {"queued": job["waits_for"], "failed": job["reason"]}.get(job["state"], "")
    return _short(f"{state}: {word(why)}" if why else state, _STATE_WIDTH)


def _since(job: dict[str, Any]) -> str:
    """How long it has run, or has waited."""
    begun = job["started_at"] or job["submitted_at"]
    ended = job["ended_at"] or datetime.now(UTC).isoformat()
    if job["state"] == "queued":
        begun, ended = job["submitted_at"], datetime.now(UTC).isoformat()
    seconds = max(0, round((datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds()))
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}d {clock}" if days else clock


def _asked(asked: dict[str, Any]) -> str:
    from ailab.cli.output import human_size

    each = f"{asked['workers']} x " if asked["workers"] > 1 else ""
    words = [f"{each}{asked['cpus']} CPU"]
    if asked["gpus"] or asked["gpu_fraction"]:
        words.append(f"{asked['gpus'] or asked['gpu_fraction']:g} GPU")
    if asked["memory_bytes"]:
        words.append(human_size(asked["memory_bytes"]))
    return ", ".join(words)


def job_as_text(job: dict[str, Any]) -> str:
    """One job for a person."""
    import shlex

    asked = job["asked"]
    rows = [
        (_("Name"), job["name"]),
        (_("User"), job["owner"]),
        (_("State"), _state(job)),
        (_("Note"), " ".join([job["note"], *job["troubles"]]).strip()),
        (_("Progress"), job["progress"]["text"] if job["progress"] else ""),
        (_("Command"), shlex.join(job["command"])),
        (_("Folder"), job["cwd"]),
        (_("Workers"), _workers(job)),
        (_("Holds"), _asked(asked)),
        (_("Network"), word(job["network"] or "")),
        (_("Submitted"), _clock(job["submitted_at"])),
        (_("Started"), _clock(job["started_at"])),
        (_("Ended"), _clock(job["ended_at"])),
        (_("Attempt"), str(job["attempt"]) if job["attempt"] > 1 else ""),
        (_("After"), ", ".join(asked["after"])),
        (_("Variables"), ", ".join(asked["variables"])),
        (_("Seed"), "" if asked["seed"] is None else str(asked["seed"])),
        (_("Output"), f"ailab logs {job['id']}"),
    ]
    return table([_("JOB"), str(job["id"])], [[title, text] for title, text in rows if text])


def _workers(job: dict[str, Any]) -> str:
    """How they train together, and what each is called in the output."""
    if not job["asked"]["strategy"]:
        return ""
    names = ", ".join(f"{number} {member['name']}" for number, member in enumerate(job["members"]))
    how = f"{job['asked']['workers']} {job['asked']['strategy']}"
    return f"{how} ({names})" if len(job["members"]) > 1 else how


def _clock(at: str | None) -> str:
    return f"{datetime.fromisoformat(at).astimezone():%Y-%m-%d %H:%M:%S}" if at else ""


def schedules_as_text(found: list[dict[str, Any]]) -> str:
    if not found:
        return _("No schedules. Set one: ailab run --every 1d -- python train.py")
    rows = [
        [
            str(one["id"]),
            _short(one["name"], 24),
            one["owner"],
            f"{one['every'] / 3600:g} h",
            f"{datetime.fromtimestamp(one['due']):%Y-%m-%d %H:%M}",
            str(one["last_job"] or "-"),
        ]
        for one in found
    ]
    return table([_("SCHEDULE"), _("NAME"), _("USER"), _("EVERY"), _("NEXT"), _("LAST JOB")], rows)
