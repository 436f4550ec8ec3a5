"""`ailab run`: queue a job, and follow it if asked to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ailab.cli import job_words, labs
from ailab.cli.output import note, print_json, say
from ailab.errors import UsageError
from ailab.i18n import _

if TYPE_CHECKING:
    from ailab.lab import Lab


def run(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND...", help=_("What to run: python train.py --epochs 100"))
    ] = None,
    name: Annotated[str, typer.Option(help=_("What the job is called."))] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help=_("Show its output until it ends."))] = False,
    workers: Annotated[
        int, typer.Option(help=_("How many train together; CPUs, memory and GPUs are each one's."), min=1)
    ] = 1,
    strategy: Annotated[
        str, typer.Option(metavar="HOW", help=_("How they do: mirrored, multiworker, ps or horovod."))
    ] = "",
    insecure_ports: Annotated[
        bool,
        typer.Option(
            "--insecure-ports",
            help=_("Give workers that connect to each other the network, and leave their ports open to others."),
        ),
    ] = False,
    cpus: Annotated[int, typer.Option(help=_("CPUs; 0: those that go with its GPUs, else all."), min=0)] = 0,
    memory: Annotated[str, typer.Option(metavar="SIZE", help=_("The most memory that it may take: 8g."))] = "",
    gpus: Annotated[int, typer.Option(help=_("Whole GPUs."), min=0)] = 0,
    gpu_fraction: Annotated[float, typer.Option(help=_("A part of one GPU's memory instead: 0.5."))] = 0.0,
    priority: Annotated[int, typer.Option(help=_("Higher: before your other jobs."))] = 0,
    after: Annotated[
        list[str] | None, typer.Option(metavar="JOB[:ok|any]", help=_("Only when that job has ended (well)."))
    ] = None,
    retries: Annotated[int, typer.Option(help=_("How often it is started again, where that can help."), min=0)] = 0,
    timeout: Annotated[str, typer.Option(metavar="TIME", help=_("The longest that it may run: 90s, 10m, 2h."))] = "",
    grace: Annotated[
        str, typer.Option(metavar="TIME", help=_("How long it may take to end when it is stopped. [default: 30s]"))
    ] = "",
    resume: Annotated[bool, typer.Option("--resume", help=_("Start it again when the machine went down."))] = False,
    env: Annotated[list[str] | None, typer.Option(metavar="K=V", help=_("A variable; K alone: as it is here."))] = None,
    array: Annotated[str, typer.Option(metavar="1-20", help=_("Many jobs, numbered by AILAB_ARRAY_INDEX."))] = "",
    at: Annotated[str, typer.Option(metavar="WHEN", help=_('Not before: 18:30, "2026-12-24 18:30".'))] = "",
    every: Annotated[str, typer.Option(metavar="TIME", help=_("Again and again: 6h, 1d."))] = "",
    seed: Annotated[int | None, typer.Option(help=_("Of its random numbers: PYTHONHASHSEED, AILAB_SEED."))] = None,
    input: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help=_("What it reads; its fingerprint is kept."))
    ] = None,
    cwd: Annotated[Path | None, typer.Option(metavar="DIR", help=_("Where it runs. [default: here]"))] = None,
    file: Annotated[Path | None, typer.Option(metavar="JOB.TOML", help=_("All of this from a file."))] = None,
    json: Annotated[bool, typer.Option("--json", help=_("End with one JSON object."))] = False,
) -> None:
    asked: dict[str, Any] = {
        "command": command,
        "name": name,
        "workers": workers if workers > 1 else None,
        "strategy": strategy,
        "insecure_ports": insecure_ports,
        "cpus": cpus,
        "memory": memory,
        "gpus": gpus,
        "gpu_fraction": gpu_fraction,
        "priority": priority,
        "after": after,
        "retries": retries,
        "timeout": timeout,
        "grace": grace,
        "resume": resume,
        "env": _variables(env or []),
        "array": array,
        "at": at,
        "every": every,
        "seed": seed,
        "inputs": [str(Path(path).absolute()) for path in input or []],
    }
    wish = _from_file(file) if file is not None else {"cwd": str(Path.cwd())}
    wish |= {key: value for key, value in asked.items() if value or (value == 0 and key == "seed")}
    if cwd is not None:
        wish["cwd"] = str(cwd.absolute())
    if not wish.get("command"):
        raise UsageError(_("There is nothing to run."), remedy=_("For example: ailab run -- python train.py"))
    owner = job_words.owner()
    lab = labs.open_lab()
    with job_words.errors_as_typed(str(file) if file is not None else ""):
        made = lab.client.post("/api/jobs", {"owner": owner, "wish": wish})
    tell_queued(lab, made, follow=follow, json=json)


def tell_queued(lab: Lab, made: dict[str, Any], *, follow: bool, json: bool) -> None:
    """Say what has been queued, or follow it to its end and exit as it does."""
    if made.get("network") and not json:
        note(job_words.about_network(made["network"]))
    if follow and made["jobs"]:
        from ailab.cli import logs

        note(_("Job {id} is queued.").format(id=made["jobs"][0]))
        raise typer.Exit(logs.follow(lab, made["jobs"][0]))
    if json:
        print_json(made)
    elif made["schedule"] is not None:
        say(_("Schedule {id} is set. See it: ailab jobs --schedules").format(id=made["schedule"]))
    else:
        say(_said(made["jobs"]))


def _said(jobs: list[int]) -> str:
    if len(jobs) > 1:
        return _("Jobs {first} to {last} are queued. See them: ailab jobs").format(first=jobs[0], last=jobs[-1])
    return _("Job {id} is queued. Its output: ailab logs -f {id}").format(id=jobs[0])


def _variables(words: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and name not in os.environ:
            raise UsageError(
                _("--env {name}: there is no such variable here.").format(name=name), remedy=_("Say what it is: K=V")
            )
        found[name] = value if equals else os.environ[name]
    return found


def _from_file(file: Path) -> dict[str, Any]:
    """What job.toml says; its folder is where the job runs, unless it names another, from there."""
    import tomllib

    try:
        with file.open("rb") as source:
            wish = tomllib.load(source)
    except FileNotFoundError:
        raise UsageError(
            _("There is no file {file}.").format(file=file), remedy=_("Name one: --file job.toml")
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            _("{file} is not TOML: {reason}").format(file=file, reason=error), remedy=_("Mend that line.")
        ) from None
    folder = file.absolute().parent
    wish["cwd"] = str(folder / Path(str(wish.get("cwd", ""))).expanduser())
    wish["inputs"] = [str(folder / path) for path in wish.get("inputs", [])]
    return wish
