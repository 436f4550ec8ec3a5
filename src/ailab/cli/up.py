"""`ailab up`: make what is missing, start what is stopped, prove it, and say where to go."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ailab.cli import image_share, labs
from ailab.cli.foreground import ends_with_us, stay
from ailab.cli.output import note, print_json, say, step
from ailab.i18n import _
from ailab.lab_account import reading
from ailab.paths import IMAGE_LAB, SETTINGS_NAME, LabPaths, MachinePaths, account_name, person

if TYPE_CHECKING:
    from ailab.images.base import Base
    from ailab.images.readout import Carried
    from ailab.lab import Lab


@dataclass(frozen=True)
class Ready:
    """Where to go and how to log in, once the hub answers. `password` is set once, when the user was made."""

    url: str
    user: str
    password: str | None
    link: str

    def login(self) -> dict[str, Any]:
        return {"user": self.user, "password": self.password, "link": self.link}


def up(
    port: Annotated[int | None, typer.Option(help=_("The web port; it is kept in lab.toml."), min=1, max=65535)] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help=_("Stay, and stop the lab when told to end (SIGTERM, Ctrl-C)."))
    ] = False,
    image: Annotated[
        str, typer.Option("--image", metavar="REF", help=_("Make the lab that this image of a registry carries."))
    ] = "",
    json: Annotated[bool, typer.Option("--json", help=_("End with one JSON object on standard output."))] = False,
) -> None:
    carried = of_registry(image) if image else None
    from ailab.shutdown import stop_mark

    root = IMAGE_LAB if _is_in_image() else labs.folder_for_up()
    who, mark = person(), stop_mark(LabPaths(root))
    labs.take_over_settings()
    holder = port_holder(port)
    base = image_base()
    if not foreground:
        run_up(prepare(port, carried, holder), who, holder, base, mark, json=json)
        return
    lab = prepare(port, carried, holder)
    with ends_with_us(lab):
        run_up(lab, who, holder, base, mark, json=json, told_early=True)
        stay(lab, mark)


def run_up(
    lab: Lab, person: str, holder: str, base: Base | None, mark: int, *, json: bool, told_early: bool = False
) -> None:
    """The steps of `up`, and its last words. An `ailab down` that is typed after `mark` was noted ends them.

    `told_early`: how to log in is said before the lab is proven, to who waits for it at a container's log; the
    container's health tells of the proof."""
    from ailab import bringup, shutdown

    lab.make_private_folders()
    with shutdown.unless_stopped(lab, mark), bringup.one_at_a_time(lab, note):
        shutdown.stop_moved(lab, note)
        ready = bring_up(lab, person, holder, base, mark)
        if told_early and not json:
            tell(as_text(lab, ready))
        verified = prove(lab, ready, politely=told_early)
    if json:
        print_json(lab.client.get("/api/status") | {"login": ready.login(), "verified": verified})
    else:
        tell(proven_line(verified) if told_early else as_text(lab, ready, verified))


def tell(text: str) -> None:
    say(text)
    sys.stdout.flush()


def port_holder(port: int | None) -> str:
    """As root: who holds the web port that `up` is to use, while we may still look. Empty when nobody does."""
    from ailab.resources import ports
    from ailab.settings import Settings
    from ailab.settings_file import load_settings

    if os.geteuid() != 0:
        return ""
    file = LabPaths(labs.folder_for_up()).settings
    with reading(file.parent):
        wanted = port or (load_settings(file).access.port if file.exists() else Settings().access.port)
    return ports.holder(wanted)


def of_registry(name: str) -> Carried:
    """The lab in an image of a registry, which is brought here; by whoever types, whose login it is."""
    from ailab import sharing

    return sharing.read_out(image_share.pulled(name))


def image_base() -> Base | None:
    """Where people's tasks are containers: the base of their image, made while we may still be root. None where that
    image is one that the lab was made from."""
    from ailab import bases, provision
    from ailab.lab import Lab
    from ailab.runtimes.registry import uses_engine

    root = labs.folder_for_up()
    if not LabPaths(root).settings.exists():
        return None
    with reading(root):
        lab = Lab.open(root)
        if not uses_engine(lab.settings.lab.runtime) or provision.given_environment(lab) is not None:
            return None
    return bases.ensure(root, step)


def prepare(port: int | None, carried: Carried | None, holder: str) -> Lab:
    """The lab to bring up, made where there is none, and with root given up. Bad settings are refused first of all."""
    from ailab import bringup, provision, sharing
    from ailab.cli import init
    from ailab.lab import Lab
    from ailab.settings_file import close_to_others, set_value

    if _is_in_image():
        return _of_image()
    root = labs.folder_for_up()
    if LabPaths(root).settings.exists():
        with reading(root):
            provision.lab_stack(Lab.open(root))
    before = account_name()
    labs.enter(root, engine=carried is not None)
    if account_name() != before:
        note(
            _("Started as {before}: the lab belongs to the account {now} and runs as it.").format(
                before=before, now=account_name()
            )
        )
    if carried is not None:
        sharing.make_lab(root, carried)
    if not LabPaths(root).settings.exists():
        note(_("No lab here: making one in {root}.").format(root=root))
        init.create(root, port=port or 8888)
    elif port is not None:
        lab = labs.opened(root)
        access = lab.settings.access.model_copy(update={"port": port})
        # What cannot be had is not kept in lab.toml.
        bringup.check_port(replace(lab, settings=lab.settings.model_copy(update={"access": access})), holder)
        set_value(LabPaths(root).settings, "access", "port", port)
    if close_to_others(LabPaths(root).settings):
        note(_("There are credentials in {file}: only this account can read it now.").format(file=SETTINGS_NAME))
    return labs.opened(root)


def _is_in_image() -> bool:
    return MachinePaths.from_environment(os.environ).image.exists()


def _of_image() -> Lab:
    """The lab of the image that we run in."""
    from ailab import standing

    root = standing.settle()
    return labs.opened(root)


def bring_up(lab: Lab, person: str, holder: str, base: Base | None, mark: int) -> Ready:
    """Until the hub answers: each step shown with its time. Whatever is in place already is left alone."""
    from ailab import bases, bringup, containers, imaging, mounting, provision

    bringup.check_port(lab, holder)
    containers.refuse_without_engine(lab)
    mounting.ensure(lab)
    bases.tell_of_missing(lab, note)
    provision.ensure_environment(lab, step, note)
    provision.ensure_tools(lab, step)
    if base is not None:
        imaging.ensure(lab, base, step, note)
    with step(_("Starting the lab")) as tell, bringup.ends_when_disk_is_full(lab):
        bringup.ensure_daemon(lab, mark)
        bringup.wait_until_ready(lab, tell)
    bringup.begin_workspace(lab, next(iter(lab.client.get("/api/users")), person))
    first = lab.client.post("/api/users/first", {"name": person})
    link = lab.client.post("/api/login-links", {"name": first["name"]})["url"]
    return Ready(lab.client.get("/api/status")["url"], first["name"], first["password"], link)


def prove(lab: Lab, ready: Ready, *, politely: bool = False) -> dict[str, Any]:
    """What a cell in the first person's workspace finds; refused where it computes on a CPU that was not asked for."""
    from ailab import bringup, preflight

    with step(_("Running a cell in the lab")) as tell, bringup.ends_when_disk_is_full(lab):
        verified = bringup.prove(lab, ready.user, tell, politely=politely)
        tell(versions(verified))
    preflight.refuse_silent_cpu(lab, verified["gpus"])
    return verified


def as_text(lab: Lab, ready: Ready, verified: dict[str, Any] | None = None) -> str:
    """The end of `up` for a person, in 80 columns."""
    lines = [
        "",
        _("The lab is ready:  {url}").format(url=ready.url),
        _("  User             {user}").format(user=ready.user),
    ]
    if ready.password:
        lines.append(
            _("  Password         {password}  (works once; you then choose your own)").format(password=ready.password)
        )
    else:
        lines.append(_("  Password         the one that you chose. Forgotten? ailab open"))
    lines += [
        _("  Or log in with   ailab open"),
        _("  Files            {root}").format(root=lab.paths.root),
        *([proven_line(verified)] if verified is not None else []),
        "",
        _("Stop it:    ailab down"),
        _("How it is:  ailab status"),
    ]
    return "\n".join(lines)


def proven_line(verified: dict[str, Any]) -> str:
    return _("  Proven           {versions}").format(versions=versions(verified))


def versions(verified: dict[str, Any]) -> str:
    """What the proof found, in a few words."""
    gpus = verified["gpus"]
    gpu = _("{count} GPU").format(count=len(gpus)) if gpus else _("no GPU, computing on the CPU")
    framework = f"TensorFlow {verified['tensorflow']}, " if verified["tensorflow"] else ""
    return f"{framework}Python {verified['python']}, {gpu}"
