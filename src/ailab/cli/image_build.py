"""`ailab image build`: the lab as a container image; `run-command`: the line that starts it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ailab.cli import labs
from ailab.cli.output import human_size, note, print_json, say, step
from ailab.errors import UsageError
from ailab.i18n import _

Json = Annotated[bool, typer.Option("--json", help=_("End with one JSON object."))]


def build(
    print_it: Annotated[bool, typer.Option("--print", help=_("Print the Dockerfile; build nothing."))] = False,
    again: Annotated[bool, typer.Option("--again", help=_("Build it anew, also where it is there already."))] = False,
    builder: Annotated[
        str, typer.Option("--builder", help=_("docker, podman or buildah; without it, what fits the engine."))
    ] = "",
    json: Json = False,
) -> None:
    from ailab import bases, imaging

    _refuse_unknown(builder)
    made = bases.ensure(labs.located(), step)
    lab = labs.open_lab(engine=True)
    if print_it:
        say(imaging.print_dockerfile(lab, made, step, note).rstrip())
        return
    built = imaging.build(lab, made, step, note, again=again, by=builder)
    if json:
        print_json(
            {"id": built.id, "names": built.names, "bytes": built.size_bytes, "new": built.new, **vars(built.labels)}
        )
        return
    said = _("Built {name} ({size}).") if built.new else _("{name} is there already ({size}): nothing has changed.")
    say(said.format(name=built.names[0], size=human_size(built.size_bytes)))
    say(_("Run it: ailab image run-command"))


def _refuse_unknown(builder: str) -> None:
    from ailab.images.builder import BUILDERS

    if builder and builder not in BUILDERS:
        raise UsageError(
            _("There is no builder called {name}.").format(name=builder),
            remedy=_("Choose one of: {names}.").format(names=", ".join(BUILDERS)),
        )


def base(json: Json = False) -> None:
    """Make the base anew, of the packages that Debian has today, and pin it in lab.lock."""
    from ailab import bases, provision

    made = bases.ensure(labs.located(), step, renew=True)
    lab = labs.open_lab(engine=True)
    provision.ensure_lock(lab)
    bases.pin(lab, made)
    if json:
        print_json(vars(made))
    else:
        say(_("The lab's images stand on {reference} from now on ({count} packages).").format(
            reference=made.reference, count=len(made.apt)))  # fmt: skip


def run_command(json: Json = False) -> None:
    """Print the line that runs the lab's image here: with its folders, limits, GPUs and port."""
    from ailab import imaging
    from ailab.images import run_command as command

    groups = imaging.run_words(labs.open_lab())
    if json:
        print_json({"command": [word for group in groups for word in group]})
    else:
        say(command.text(groups))


def seal() -> None:
    """Within an image's build: make what was installed the lab's environment."""
    from ailab import standing
    from ailab.paths import IMAGE_HOME

    program = next((IMAGE_HOME / "pythons").glob("*/bin/python3.*"))
    say(standing.seal(Path(program)))
