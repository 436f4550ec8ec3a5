"""Compiles a generation's bytecode after it is in use; what another generation has compiled is linked, not copied.

Run as `python -m ailab.environments.bytecode GENERATION` in the background.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from ailab import command, files
from ailab.environments import installed
from ailab.environments.generations import Generation
from ailab.environments.halves import bytecode_lock
from ailab.paths import MachinePaths, private_folder

COMPILE_SECONDS = 1800.0
_DONE = ".compiled"


def is_compiled(generation: Generation) -> bool:
    return Path(generation.folder, _DONE).exists()


def note_compiled(generation: Path) -> None:
    """Something else has compiled it."""
    (generation / _DONE).touch()


def compile_bytecode(generation: Path) -> None:
    """Give every module of the generation its .pyc. Does nothing where that has been done, or the generation is being
    built anew."""
    private_folder(MachinePaths(generation.parent.parent).locks)
    with files.locked_if_free(bytecode_lock(generation)) as ours:
        if ours and generation.exists() and not (generation / _DONE).exists():
            _compile(generation)


def _compile(generation: Path) -> None:
    site = installed.site_packages(generation)
    for other in sorted(generation.parent.glob(f"*/{_DONE}")):
        _link_from(other.parent, site.relative_to(generation), site)
    program = generation / "bin/python"
    command.run([program, "-I", "-m", "compileall", "-q", "-j", "1", str(site)], timeout=COMPILE_SECONDS, check=False)
    note_compiled(generation)


def _link_from(other: Path, relative: Path, site: Path) -> None:
    """Link the .pyc of each module that is the very same file there: its time and size, which a .pyc names, agree."""
    for folder, folders, names in os.walk(other / relative):
        if "__pycache__" not in folders:
            continue
        ours = site / Path(folder).relative_to(other / relative)
        for name in names:
            if name.endswith(".py") and _same(Path(folder, name), ours / name):
                for compiled in Path(folder, "__pycache__").glob(f"{name.removesuffix('.py')}.*.pyc"):
                    (ours / "__pycache__").mkdir(exist_ok=True)
                    with contextlib.suppress(OSError):
                        os.link(compiled, ours / "__pycache__" / compiled.name)


def _same(one: Path, two: Path) -> bool:
    try:
        return one.samefile(two)
    except OSError:
        return False


if __name__ == "__main__":
    os.nice(15)
    compile_bytecode(Path(sys.argv[1]))
