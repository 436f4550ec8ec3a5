"""`ailab env verify | fingerprint | compare`: whether an environment is what it should be, here and elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ailab.cli import labs
from ailab.cli.output import note, print_json, say, step, table
from ailab.errors import Conflict, NotFound, UsageError
from ailab.i18n import _

if TYPE_CHECKING:
    from ailab.environments.fingerprint import Difference, Fingerprint
    from ailab.environments.generations import Generation
    from ailab.environments.verification import Verification
    from ailab.lab import Lab

Json = Annotated[bool, typer.Option("--json", help=_("Print JSON."))]
_SHOWN = 10


def register(app: typer.Typer) -> None:
    app.command("verify", help=_("Compare every installed file and package with the lock."))(verify)
    app.command("fingerprint", help=_("What decides how this environment computes, to compare machines."))(fingerprint)
    app.command("compare", help=_("Compare with the fingerprint of another machine."))(compare)


def chosen(lab: Lab, generation: str) -> Generation:
    """The generation called `generation`; the one in use where that is empty."""
    if generation:
        return lab.generations.get(generation)
    current = lab.generations.current()
    if current is None:
        raise NotFound(_("The environment is not built yet."), remedy=_("Build and start it: ailab up"))
    return current


def installed(lab: Lab, generation: str) -> Generation:
    """As `chosen`, for who looks at its files. Raises `Conflict` where it is in an image, and not on this machine."""
    one = chosen(lab, generation)
    if Path(one.folder) == lab.paths.given.resolve():
        raise Conflict(
            _("{id} is in the image that the lab was made from, not on this machine.").format(id=one.id),
            remedy=_("Compare the image with lab.lock: ailab image verify"),
        )
    return one


def verify(
    generation: Annotated[str, typer.Argument(help=_("Which one; without it, the one in use."))] = "",
    proof: Annotated[
        bool, typer.Option("--proof", help=_("Also run the stack's whole proof: train, save, reload, compare."))
    ] = False,
    json: Json = False,
) -> None:
    from ailab.environments import verification

    lab = labs.open_lab()
    one = installed(lab, generation)
    with step(_("Comparing every file with the lock")) as far:
        found = verification.verify(one)
        far(_("{count} files").format(count=found.files))
    in_lock = _is_of_lock(lab, one)
    document = found.to_json() | {"lab_lock": in_lock}
    if not json:
        for line in findings(found):
            say(line)
    if in_lock is False:
        note(_("lab.lock asks for another environment than this one. To build it: ailab env build"))
    if found.ok and proof:
        document["proof"] = _prove(lab, one, json=json)
    if json:
        print_json(document)
        raise typer.Exit(0 if found.ok else 1)
    if not found.ok:
        raise verification.Drifted(
            _("{id} is not what its lock says.").format(id=one.id),
            remedy=_("Build the environment anew: ailab env build --again")
            if in_lock is not False
            else _("Go to what lab.toml asks: ailab env build; then take this one away: ailab env gc --all"),
        )
    say(_("{id} is what its lock says: {files} files, {packages} packages.").format(
        id=one.id, files=found.files, packages=len(one.packages)))  # fmt: skip


def _is_of_lock(lab: Lab, generation: Generation) -> bool | None:
    """Whether it was built from lab.lock as it is now; None where there is no lab.lock."""
    from ailab.environments.lock import read_lock

    lock = read_lock(lab.paths.lock)
    return None if lock is None else generation.lock in (lock.digest(), lock.with_cuda().digest())


def _prove(lab: Lab, generation: Generation, *, json: bool) -> dict[str, Any]:
    from ailab import provision
    from ailab.environments.verification import prove

    lab.make_private_folders()
    with step(_("Running the whole proof in the lab's kernel")):
        document = prove(generation, provision.stack_of(lab, generation), lab.paths)
    if not json:
        for name, seconds in document.get("seconds", {}).items():
            say(f"ok  {name} ({seconds:.1f} s)")
    return document


def findings(found: Verification) -> list[str]:
    """What is not as it should be, one thing a line; of each kind the first few."""
    problems = {
        "missing": _("package {name} {locked} is missing"),
        "extra": _("package {name} {installed} is not in the lock"),
        "version": _("package {name} is {installed}, the lock says {locked}"),
        "build": _("package {name} {installed} has been replaced by another build"),
    }
    packages = [
        problems[one.problem].format(name=one.name, locked=one.locked, installed=one.installed)
        for one in found.packages
    ]
    return [
        *_first(packages),
        *_first([_("changed: {path}").format(path=path) for path in found.changed]),
        *_first([_("missing: {path}").format(path=path) for path in found.missing]),
        *_first([_("extra: {path}").format(path=path) for path in found.extra]),
    ]


def _first(lines: list[str]) -> list[str]:
    rest = len(lines) - _SHOWN
    return lines if rest <= 0 else [*lines[:_SHOWN], _("... and {count} more: --json has all").format(count=rest)]


def _of_this_machine(generation: Generation) -> Fingerprint:
    from ailab.environments import fingerprint as fingerprints
    from ailab.resources.detect import detect_gpus

    gpus = detect_gpus()
    driver = gpus[0].driver if gpus else ""
    return fingerprints.fingerprint(
        generation, driver=driver, gpus=[(gpu.name, gpu.compute_capability) for gpu in gpus]
    )


def fingerprint(
    generation: Annotated[str, typer.Argument(help=_("Which one; without it, the one in use."))] = "",
    json: Json = False,
) -> None:
    made = _of_this_machine(installed(labs.open_lab(), generation))
    if json:
        print_json(made.to_json())
        return
    python = made.interpreter
    gpus = ", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in made.gpus)
    rows = [
        [_("Fingerprint"), made.digest()],
        [_("Environment"), made.environment],
        ["Python", f"{python.implementation} {python.version} ({python.build}, {python.compiler})"],
        [_("Packages"), str(len(made.packages))],
        ["CUDA", ", ".join(f"{name} {version}" for name, version in made.cuda.items()) or "-"],
        [_("NVIDIA driver"), made.driver or "-"],
        ["GPU", gpus or "-"],
        ["CPU", " ".join(made.cpu_features) or "-"],
        [_("System"), f"{made.platform}, glibc {made.glibc}"],
    ]
    say(table(rows[0], rows[1:]))


def compare(
    file: Annotated[
        Path, typer.Argument(help=_("What env fingerprint --json wrote on the other machine; - to read it."))
    ],
    json: Json = False,
) -> None:
    from ailab.environments import fingerprint as fingerprints

    there = fingerprints.read_fingerprint(_read(file), str(file))
    here = _of_this_machine(installed(labs.open_lab(), ""))
    differences = fingerprints.compare(here, there)
    if json:
        print_json({"same": not differences, "differences": [vars(one) for one in differences]})
    elif differences:
        say(table(["", _("NAME"), _("HERE"), _("THERE")], [_row(one) for one in differences]))
    else:
        say(_("same"))
    raise typer.Exit(1 if differences else 0)


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        message = _("Cannot read {file}: {reason}.").format(file=file, reason=reason)
        raise UsageError(
            message, remedy=_("Make one on the other machine: ailab env fingerprint --json > FILE")
        ) from None


def _row(one: Difference) -> list[str]:
    kinds = {
        "interpreter": "Python",
        "package": _("package"),
        "build": _("build of package"),
        "cuda": _("CUDA library"),
        "driver": _("NVIDIA driver"),
        "gpu": "GPU",
        "cpu": _("CPU feature"),
        "system": _("system"),
    }
    return [kinds[one.kind], one.name, one.here or "-", one.there or "-"]
