"""`ailab env`: lock, build, list, use, roll back."""

from __future__ import annotations

from typing import Annotated

import typer

from ailab.cli import env_check, env_generations, env_gpu, env_packages, env_stacks, labs
from ailab.cli.output import note, print_json, say, step
from ailab.i18n import _
from ailab.paths import account_name

Json = Annotated[bool, typer.Option("--json", help=_("Print JSON."))]


def app() -> typer.Typer:
    made = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    made.command("lock", help=_("Write lab.lock for what lab.toml asks; unchanged wishes change nothing."))(lock)
    made.command("build", help=_("Build the lock into a generation and use it."))(build)
    env_generations.register(made)
    made.command("use", help=_("Switch to a generation."))(use)
    made.command("rollback", help=_("Switch back to the generation before."))(rollback)
    env_packages.register(made)
    env_check.register(made)
    made.command("gpu", help=_("Does the GPU work? Each link of the chain, with its remedy."))(env_gpu.gpu)
    env_stacks.register(made)
    return made


def lock(
    packages: Annotated[
        list[str] | None, typer.Argument(metavar="[PKG]...", help=_("With --upgrade: only these."))
    ] = None,
    upgrade: Annotated[
        bool,
        typer.Option("--upgrade", help=_("Take the newest that the stack allows; with names only of those.")),
    ] = False,
    json: Json = False,
) -> None:
    from ailab import provision

    if upgrade or packages:
        env_packages.upgrade(packages or [], upgrade=upgrade, json=json)
        return
    lab = labs.open_lab()
    with step(_("Locking the environment")):
        locked, written = provision.ensure_lock(lab)
    if json:
        print_json({"lock": locked.digest(), "written": written, "packages": len(locked.packages)})
    else:
        say(_("Wrote {path}.").format(path=lab.paths.lock) if written else _("The lock is up to date."))


def build(
    again: Annotated[
        bool, typer.Option("--again", help=_("Build it anew even if it is there, as when it is damaged."))
    ] = False,
    json: Json = False,
) -> None:
    from ailab import provision

    lab = labs.open_lab()
    lab.make_private_folders()
    generation = provision.ensure_environment(lab, step, note, by_hand=True, again=again)
    if json:
        print_json(generation.to_json())
    else:
        say(_("In use: {id}").format(id=generation.id))


def use(
    generation: Annotated[str, typer.Argument(help=_("Its name, as env list shows it."))], json: Json = False
) -> None:
    from ailab import provision

    lab = labs.open_lab()
    used = lab.generations.use(generation, who=account_name(), why="use", wish=provision.wish_of(lab))
    _switched(used.to_json(), json=json)


def rollback(json: Json = False) -> None:
    from ailab import provision

    lab = labs.open_lab()
    used = lab.generations.rollback(who=account_name(), wish=provision.wish_of(lab))
    _switched(used.to_json(), json=json)


def _switched(generation: dict[str, object], *, json: bool) -> None:
    if json:
        print_json(generation)
    else:
        say(_("In use: {id}. New kernels get it; open ones keep theirs.").format(id=generation["id"]))
