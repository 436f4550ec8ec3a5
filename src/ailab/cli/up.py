"""`ailab up`: make what is missing, start what is stopped, prove it, and say where to go."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ailab.cli import account, labs
from ailab.cli.output import print_json, step
from ailab.i18n import _
from ailab.lab import Lab
from ailab.paths import LabPaths
from ailab.settings_file import load_settings, set_value


@dataclass(frozen=True)
class Ready:
    """How `up` ends: where to go and how to log in. `password` is set once, when the user was made."""

    document: dict[str, Any]
    user: str
    password: str | None
    link: str
    verified: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        login = {"user": self.user, "password": self.password, "link": self.link}
        return self.document | {"login": login, "verified": self.verified}


def up(
    port: Annotated[int | None, typer.Option(help=_("The web port; it is kept in lab.toml."), min=1, max=65535)] = None,
    json: Annotated[bool, typer.Option("--json", help=_("End with one JSON object on standard output."))] = False,
) -> None:
    person = account.person()
    lab = prepare(port)
    ready = bring_up(lab, person)
    if json:
        print_json(ready.to_json())
    else:
        print(as_text(ready))


def prepare(port: int | None) -> Lab:
    """The lab to bring up, made where there is none, and with root given up."""
    from ailab.cli import init

    root = labs.folder_for_up()
    if LabPaths(root).settings.exists():
        load_settings(LabPaths(root).settings)
    before = account.owner_name()
    labs.enter(root)
    if account.owner_name() != before:
        _say(
            _("Started as {before}: the lab belongs to the account {now} and runs as it.").format(
                before=before, now=account.owner_name()
            )
        )
    if not LabPaths(root).settings.exists():
        _say(_("No lab here: making one in {root}.").format(root=root))
        init.create(root, port=port or 8888)
    elif port is not None:
        set_value(LabPaths(root).settings, "access", "port", port)
    return labs.speaking(Lab.open(root))


def bring_up(lab: Lab, person: str) -> Ready:
    """The steps of `up`, each shown with its time. Whatever is in place already is left alone."""
    from ailab import bringup, provision

    lab.make_private_folders()
    with bringup.one_at_a_time(lab, _say):
        bringup.check_port(lab)
        provision.ensure_environment(lab, step)
        provision.ensure_tools(lab, step)
        with step(_("Starting the lab")) as tell:
            bringup.ensure_daemon(lab)
            bringup.wait_until_ready(lab, tell)
        first = lab.client.post("/api/users/first", {"name": person})
        with step(_("Running a cell in the lab")) as tell:
            verified = bringup.prove(lab, first["name"], tell)
            tell(versions(verified))
        link = lab.client.post("/api/login-links", {"name": first["name"]})["url"]
        return Ready(lab.client.get("/api/status"), first["name"], first["password"], link, verified)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def as_text(ready: Ready) -> str:
    """The end of `up` for a person, in 80 columns."""
    document, verified = ready.document, ready.verified
    lines = [
        "",
        _("The lab is ready:  {url}").format(url=document["url"]),
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
        _("  Files            {root}").format(root=document["lab"]["root"]),
        _("  Proven           {versions}").format(versions=versions(verified)),
        "",
        _("Stop it: ailab down    How it is: ailab status"),
    ]
    return "\n".join(lines)


def versions(verified: dict[str, Any]) -> str:
    """What the proof found, in a few words."""
    gpus = verified["gpus"]
    gpu = _("{count} GPU").format(count=len(gpus)) if gpus else _("no GPU, computing on the CPU")
    framework = f"TensorFlow {verified['tensorflow']}, " if verified["tensorflow"] else ""
    return f"{framework}Python {verified['python']}, {gpu}"
