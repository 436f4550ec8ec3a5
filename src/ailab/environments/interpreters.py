"""Finding a Python that the stack supports, and bringing one to where the lab's account can run it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ailab import command, files, root_folders
from ailab.environments import portable
from ailab.environments.uv import Uv
from ailab.errors import AilabError, UsageError
from ailab.i18n import _
from ailab.stacks import Stack

_NOWHERE = Path("/nonexistent")


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
    code = "import sys; print(sys.version.split()[0]); print(sys.prefix == sys.base_prefix)"
    try:
        said = command.run([program, "-I", "-c", code], timeout=20).stdout.split()
    except command.CommandFailed:
        return None
    return Interpreter(program, said[0]) if len(said) == 2 and said[1] == "True" else None


def pyenv_roots(home: Path) -> list[Path]:
    """Where pyenv keeps its Pythons: in the home, where PYENV_ROOT says, and beside the shims on PATH."""
    shims = (Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder.endswith("pyenv/shims"))
    named = [Path(os.environ["PYENV_ROOT"])] if os.environ.get("PYENV_ROOT") else []
    return list(dict.fromkeys([home / ".pyenv", *named, *(folder.parent for folder in shims)]))


def candidates(minor: str, pythons: Path, home: Path) -> Iterator[Path]:
    """Programs that may be Python `minor`: ours, then PATH's, then pyenv's real ones (its shims confuse uv)."""
    yield from sorted(pythons.glob(f"*{minor}.*/bin/python{minor}"), reverse=True)
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        program = Path(folder or ".", f"python{minor}")
        if ".pyenv/shims" not in folder and os.access(program, os.X_OK):
            yield program.resolve()
    for root in pyenv_roots(home):
        with contextlib.suppress(PermissionError):  # another account's home
            yield from _newest_first(root.glob(f"versions/{minor}.*/bin/python{minor}"))
    yield from _newest_first((home / ".local/share/uv/python").glob(f"cpython-{minor}.*/bin/python{minor}"))


def _newest_first(programs: Iterable[Path]) -> list[Path]:
    """Where they really are: one Python has one path, and so one generation, whatever links lead to it."""
    return [program.resolve() for program in sorted(programs, reverse=True)]


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
        program = Path(python).expanduser()
        return _named(stack, copied(program, uv.machine.pythons) or program)
    minors = wanted_minors(stack, python)
    return _first(minors, uv.machine.pythons, Path.home(), examine) or _fetch(stack, minors, uv)


def present(stack: Stack, python: str, pythons: Path, home: Path) -> Interpreter | None:
    """As `find`, but nothing is fetched: None where an interpreter would have to be. As root only root's own are run.

    Raises `UsageError` for one that lab.toml names and that will not do.
    """
    look = _examine_roots if os.geteuid() == 0 else examine
    if "/" in python:
        program = Path(python).expanduser()
        return _named(stack, copied(program, pythons) or program, look)
    return _first(wanted_minors(stack, python), pythons, home, look)


def _first(
    minors: list[str], pythons: Path, home: Path, look: Callable[[Path], Interpreter | None]
) -> Interpreter | None:
    """The first candidate that `look` finds to be what it is named."""
    for minor in minors:
        for program in candidates(minor, pythons, home):
            found = look(program)
            if found is not None and found.minor == minor:
                return found
    return None


def is_wanted(python: str, version: str, program: str, pythons: Path) -> bool:
    """Whether an environment on `program` of `version` is what [environment] python asks for."""
    if "/" not in python:
        return version == python or version.startswith(f"{python}." if python else "")
    named = Path(python).expanduser()
    return Path(program) == (copied(named, pythons) or named)


def _named(stack: Stack, program: Path, look: Callable[[Path], Interpreter | None] = examine) -> Interpreter:
    found = look(program)
    if found is None:
        raise UsageError(
            _("{program} is no Python that this account can run.").format(program=program),
            remedy=_("Correct [environment] python in lab.toml, or leave it empty."),
        )
    wanted_minors(stack, found.version)
    return found


def _fetch(stack: Stack, minors: list[str], uv: Uv) -> Interpreter:
    uv.machine.pythons.mkdir(parents=True, exist_ok=True)
    # uv's own lock: made by uv, it would be everybody's to open.
    os.close(files.open_lock(uv.machine.pythons / ".lock"))
    try:
        uv.run("python", "install", "--no-bin", minors[0])
    except AilabError as error:
        raise AilabError(
            _("No Python for {stack} on this machine, and none could be fetched.").format(stack=stack.title),
            remedy=_(
                "Install Python {pythons} (any of them) so that it is on PATH, by pyenv, or as "
                "{folder}/NAME-{first}.x/bin/python{first}; or set [environment] python to its path, or [mirrors] "
                "python to a mirror."
            ).format(pythons=", ".join(minors), folder=uv.machine.pythons, first=minors[0]),
            detail=error.detail,
        ) from error
    for program in candidates(minors[0], uv.machine.pythons, Path.home()):
        found = examine(program)
        if found is not None:
            return found
    remedy = _("Look into {folder}.").format(folder=uv.machine.pythons)
    raise AilabError(_("The Python that uv fetched does not run."), remedy=remedy)


def stage(stack: Stack, python: str, uv: Uv, account: pwd.struct_passwd) -> Path | None:
    """As root: when no fitting Python can be run by `account`, copy one of root's own to where it can.

    Nothing is run as root but root's own interpreters. Returns the copy, or None when none was needed or there is none
    (the account then searches and fails with its own words).
    """
    if "/" in python:
        return _stage_named(Path(python).expanduser(), uv, account)
    minors = [minor for minor in stack.pythons if not python or minor == ".".join(python.split(".")[:2])]
    for minor in minors:
        if any(_runs_for(account, program) for program in candidates(minor, uv.machine.pythons, _NOWHERE)):
            return None
    for minor in minors:
        for program in candidates(minor, _NOWHERE, Path.home()):
            found = _examine_roots(program)
            if found is not None and found.minor == minor:
                return _copy(found, uv, account)
    return None


def _stage_named(program: Path, uv: Uv, account: pwd.struct_passwd) -> Path | None:
    """Copy the interpreter that lab.toml names by its path, when the account cannot run it there."""
    if _runs_for(account, program) or copied(program, uv.machine.pythons) is not None:
        return None
    found = _examine_roots(program)
    return None if found is None else _copy(found, uv, account)


def copied(program: Path, pythons: Path) -> Path | None:
    """Where the copy of `program`, a path that this account need not be able to see, was put by `stage`."""
    for folder in sorted(pythons.glob("*")):
        known = portable.origin(folder)
        if known is not None and program.parent == known[0] / "bin":
            return folder / "bin" / f"python{known[1]}"
    return None


def _examine_roots(program: Path) -> Interpreter | None:
    """`examine` for root: only where nobody but root could have written the program or put another in its place."""
    try:
        real = program.resolve(strict=True)
        ways = [path.stat() for path in (real, *real.parents)]
    except OSError:
        return None
    if any(seen.st_uid != 0 or (seen.st_mode & 0o022 and not seen.st_mode & stat.S_ISVTX) for seen in ways):
        return None
    return examine(real)


def _runs_for(account: pwd.struct_passwd, program: Path) -> bool:
    """Whether `account` can run `program`: tried as the account, from a process that gives up root first."""
    become = (
        "import os,sys; gid, uid = int(sys.argv[1]), int(sys.argv[2]); os.setgroups([gid]); os.setgid(gid); "
        "os.setuid(uid); os.chdir('/'); os.execv(sys.argv[3], [sys.argv[3], '-I', '-c', 'import ssl, sqlite3, ctypes'])"
    )
    words = [sys.executable, "-I", "-c", become, str(account.pw_gid), str(account.pw_uid), str(program)]
    try:
        # The account's own program sees nothing of root's environment.
        return command.run(words, timeout=20, env={"PATH": os.defpath}, check=False).status == 0
    except command.CommandFailed:
        return False


def _copy(found: Interpreter, uv: Uv, account: pwd.struct_passwd) -> Path | None:
    """Copy a whole interpreter to where the account can run it, and give it to the account.

    Made in AILAB_HOME, which only root writes, and moved from there in one step: the account can plant no link.
    """
    source = found.program.resolve().parent.parent
    target = uv.machine.pythons / f"{found.version}-copied-{hashlib.sha256(str(source).encode()).hexdigest()[:8]}"
    unfinished = Path(tempfile.mkdtemp(prefix=".python-", dir=uv.machine.home))
    try:
        placed = unfinished / "python"
        portable.copy(found.program, placed)
        placed.chmod(0o755)
        # Here, where nobody else can enter: in the account's folder it could put something else in its place.
        with root_folders.opened(unfinished) as folder:
            root_folders.hand_over(folder, ("python",), account, most=sys.maxsize)
        if os.path.lexists(target):
            target.rename(unfinished / "old")
        placed.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    program = target / "bin" / f"python{found.minor}"
    return program if _runs_for(account, program) else None
