"""A lab in one file, and the same lab again from it on a machine without a network."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ailab import __version__, bringup, files, provision
from ailab.environments.uv_errors import room
from ailab.errors import Conflict
from ailab.i18n import _
from ailab.lab import Lab
from ailab.paths import SETTINGS_NAME, LabPaths, MachinePaths, closed_folder, private_folder
from ailab.provision import Step
from ailab.settings_file import close_to_others

if TYPE_CHECKING:
    from ailab.bundles.file import Description, Reader
    from ailab.environments.generations import Generation
    from ailab.environments.lock import Lock

_CONTROL = "requirements/control.txt"
_LABS_OWN = (SETTINGS_NAME, "lab.lock", "notebooks")


def create(lab: Lab, file: Path, sink: BinaryIO, step: Step, tell: Callable[[str], None]) -> Description:
    """Write the lab's bundle into `sink`, which is `file`, opened: ailab itself, both Pythons, all wheels, the proxy,
    and the lab's own files.

    The lab's environment is built first, so that what is packed is known to work. Nobody's password is in it.
    """
    from ailab.access import tools
    from ailab.bundles.file import Writer

    lab.make_private_folders()
    own = [*_LABS_OWN, *provision.own_stack_files(lab)]
    with bringup.one_at_a_time(lab, tell):
        generation = provision.ensure_environment(lab, step, tell)
        provision.ensure_tools(lab, step)
        locked = _lock_of(lab, generation)
    # As wheels, an environment takes about half.
    needed_mb = generation.size_bytes // 2 // 10**6
    with _staging(lab.machine) as staging:
        with room(lab.machine.cache, needed_mb):
            _fetch_wheels(lab, locked, generation, staging, step)
            with step(_("Copying the Pythons")):
                _copy_pythons(Path(generation.interpreter), generation.python, staging)
        with room(file.absolute().parent, needed_mb), step(_("Writing the bundle")) as far:
            writer = Writer(sink, far)
            for path, name in _sources():
                writer.add(path, f"program/{name}")
            writer.add(Path(provision.uv_of(lab).program), "control/uv")
            for name in ("control", "pythons", "wheels"):
                writer.add(staging / name, name)
            writer.add(tools.proxy_modules(lab.machine), "node_modules")
            for name in own:
                if (lab.paths.root / name).exists():
                    writer.add(lab.paths.root / name, f"lab/{name}")
            description = writer.finish(_describe(lab, locked, generation))
    for name in writer.left:
        tell(_("Left out: {name}, which leads out of the lab or is no file.").format(name=name))
    return description


def _lock_of(lab: Lab, generation: Generation) -> Lock:
    """What the bundle installs: lab.lock, with CUDA unless lab.toml has it off. It must be what is in use."""
    from ailab.environments import lock

    known = lock.read_lock(lab.paths.lock)
    if known is None or generation.lock not in (known.digest(), known.with_cuda().digest()):
        raise Conflict(
            _("The generation in use, {id}, is not what lab.lock says.").format(id=generation.id),
            remedy=_("Build and use that first: ailab env build"),
        )
    return known if lab.settings.environment.gpu == "off" else known.with_cuda()


def _fetch_wheels(lab: Lab, locked: Lock, generation: Generation, staging: Path, step: Step) -> None:
    from ailab.access import tools
    from ailab.bundles import wheelhouse

    uv, own = provision.uv_of(lab), tools.own_python()
    for folder in ("wheels", "control/wheels"):
        (staging / folder).mkdir(parents=True)
    with step(_("Fetching the environment's packages")) as far:
        wheelhouse.fetch(locked.requirements(), generation.program, staging / "wheels", uv, far)
    with step(_("Fetching ailab's own packages")) as far:
        control = (provision.checkout() / _CONTROL).read_text(encoding="utf-8")
        wheelhouse.fetch(control, own, staging / "control/wheels", uv, far)
        for name in tools.python_tools(mlflow=lab.settings.tracking.mlflow):
            text = (tools.REQUIREMENTS / name).read_text(encoding="utf-8")
            wheelhouse.fetch(text, own, staging / "wheels", uv, far)


def _copy_pythons(interpreter: Path, version: str, staging: Path) -> None:
    """The environment's Python, and the one that ailab itself runs on."""
    from ailab.access import tools
    from ailab.environments import portable

    where = hashlib.sha256(str(interpreter).encode()).hexdigest()[:8]
    portable.copy(interpreter, staging / "pythons" / f"{version}-bundled-{where}", libraries=True)
    minor = f"python3.{sys.version_info.minor}"
    portable.copy(tools.own_python(), staging / "control" / "pythons" / minor, libraries=True)


def _sources() -> Iterator[tuple[Path, str]]:
    """What a checkout needs to be run, with its place in it."""
    checkout = provision.checkout()
    yield checkout / "ailab", "ailab"
    for name in ("uv.txt", "control.txt"):
        yield checkout / "requirements" / name, f"requirements/{name}"
    yield Path(__file__).parent, "src/ailab"


def _describe(lab: Lab, locked: Lock, generation: Generation) -> Description:
    from ailab.bundles.file import Description

    return Description(
        ailab=__version__,
        machine=platform.machine(),
        glibc=platform.libc_ver()[1],
        stack=generation.stack,
        lock=locked.digest(),
        python=generation.python,
    )


def install(reader: Reader, root: Path, step: Step, tell: Callable[[str], None]) -> Lab:
    """Make the bundle's lab in `root`, its environment and tools built from the bundle alone; not started.

    Done twice it repairs. Files of a lab that is there already are never overwritten, a lab.toml with another port as
    little as a notebook: raises `Conflict` where it is another lab, by its lab.lock.
    """
    machine = MachinePaths.from_environment(os.environ)
    _refuse_other_machine(reader.description)
    _refuse_other_lab(reader, root)
    with _staging(machine) as staging, room(machine.cache, reader.description.bytes // 10**6):
        with step(_("Unpacking the bundle")) as far:
            reader.extract({name: staging / name for name in ("pythons", "wheels", "node_modules", "lab")}, far)
        _place(staging, machine, root)
    close_to_others(LabPaths(root).settings)
    lab = Lab.open(root)
    lab.make_private_folders()
    with bringup.one_at_a_time(lab, tell):
        provision.ensure_environment(lab, step, tell, by_hand=True)
        provision.ensure_tools(lab, step)
    return lab


def _refuse_other_machine(description: Description) -> None:
    from ailab.bundles.file import BadBundle

    ours = (platform.machine(), platform.libc_ver()[1])
    if description.machine != ours[0]:
        raise BadBundle(
            _("The bundle is for {theirs}, and this machine is {ours}.").format(
                theirs=description.machine, ours=ours[0]
            ),
            remedy=_("Create it on a machine of this kind."),
        )
    if _parts(ours[1]) < _parts(description.glibc):
        raise BadBundle(
            _("The bundle needs glibc {theirs} or newer, and this machine has {ours}.").format(
                theirs=description.glibc, ours=ours[1]
            ),
            remedy=_("Create it on a machine whose system is as old as this one's, or older."),
        )


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _refuse_other_lab(reader: Reader, root: Path) -> None:
    paths = LabPaths(root)
    path = paths.lock if paths.lock.exists() else paths.settings
    if path.exists() and path.read_bytes() != reader.read(f"lab/{path.name}"):
        raise Conflict(
            _("{path} is there already, and not the bundle's.").format(path=path),
            remedy=_("Install into another folder: ailab bundle install FILE DIR"),
        )


def _place(staging: Path, machine: MachinePaths, root: Path) -> None:
    """Move what was unpacked to where it is used, whole or not at all; what is there already stays."""
    from ailab.access import tools

    for folder, target in ((staging / "pythons", machine.pythons), (staging / "wheels", machine.wheels)):
        target.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if path.is_file() or not (target / path.name).exists():
                path.rename(target / path.name)
    tools.place_proxy_modules(machine, staging / "node_modules")
    # lab.toml comes last: with it, the folder is a lab.
    found = [path for path in (staging / "lab").rglob("*") if path.is_symlink() or path.is_file()]
    for path in sorted(found, key=lambda path: path.name == SETTINGS_NAME):
        target = root / path.relative_to(staging / "lab")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_name(f".{target.name}.bundle")
            unfinished.unlink(missing_ok=True)
            shutil.copy2(path, unfinished, follow_symlinks=False)
            unfinished.replace(target)


@contextmanager
def _staging(machine: MachinePaths) -> Iterator[Path]:
    """A folder for what is half done, on the disk that it will stay on; those that kills left behind are removed."""
    closed_folder(machine.cache)
    with files.locked_if_free(private_folder(machine.locks) / "bundle.lock") as ours:
        if not ours:
            raise Conflict(
                _("Another ailab works on a bundle."), remedy=_("Wait for it to end, and type the same again.")
            )
        for left in machine.cache.glob("bundle-*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="bundle-", dir=machine.cache) as folder:
            yield Path(folder)
