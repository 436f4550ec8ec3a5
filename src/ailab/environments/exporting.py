"""lab.lock for other tools: requirements.txt with hashes, and pylock.toml.

Formats: https://pip.pypa.io/en/stable/reference/requirements-file-format/ and PEP 751,
https://packaging.python.org/en/latest/specifications/pylock-toml/
"""

from __future__ import annotations

import tomllib
from typing import Any

from ailab import files
from ailab.environments.lock import Lock
from ailab.environments.lock_file import Package
from ailab.environments.uv import Uv
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.stacks import Stack


def requirements(lock: Lock, stack: Stack) -> str:
    """The lock as a requirements.txt with hashes. It names no index: any will do."""
    head = f"# {stack.title}, Python {', '.join(stack.pythons)}, Linux on {' and '.join(stack.platforms)}."
    return f"{head}\n# From lab.lock, by `ailab env export`.\n{lock.requirements()}"


def pylock(lock: Lock, stack: Stack, uv: Uv) -> str:
    """The lock as a pylock.toml. The format asks for the address of every file, which the lock does not hold: they are
    those of the index in use. Raises `AilabError` where that has none of a package's files.
    """
    import tomlkit

    with files.work_folder(uv.machine.work) as folder:
        pins = folder / "requirements.txt"
        pins.write_text(lock.requirements(), encoding="utf-8")
        lowest = min(stack.pythons, key=lambda minor: int(minor.split(".")[1]))
        words = ("pip", "compile", "--quiet", "--universal", "--no-deps", "--no-header", "--format", "pylock.toml")
        document = tomllib.loads(uv.run(*words, "--python-version", lowest, pins))
    known = {(package.name, package.version): package for package in lock.packages}
    entries = [_entry(entry, known[entry["name"], entry["version"]], uv) for entry in document["packages"]]
    return tomlkit.dumps(_head(stack) | {"packages": entries})


def _head(stack: Stack) -> dict[str, Any]:
    minors = sorted(int(minor.split(".")[1]) for minor in stack.pythons)
    return {
        "lock-version": "1.0",
        "created-by": "ailab",
        "requires-python": f">=3.{minors[0]},<3.{minors[-1] + 1}",
        "environments": [f"sys_platform == 'linux' and platform_machine == '{one}'" for one in stack.platforms],
    }


def _entry(entry: dict[str, Any], package: Package, uv: Uv) -> dict[str, Any]:
    """One of uv's packages with the lock's marker, and of the files only those that the lock knows."""
    made: dict[str, Any] = {"name": package.name, "version": package.version}
    if package.marker:
        made["marker"] = package.marker
    if "index" in entry:
        made["index"] = entry["index"]
    sdist = entry.get("sdist")
    if sdist is not None and _is_known(sdist, package):
        made["sdist"] = sdist
    made["wheels"] = [wheel for wheel in entry.get("wheels", []) if _is_known(wheel, package)]
    if not made["wheels"] and "sdist" not in made:
        raise AilabError(
            _("{index} has none of the files of {package} that lab.lock knows.").format(
                index=uv.index or "PyPI", package=package.pin()
            ),
            remedy=_("Use the index that the lock was made with: [mirrors] pypi in lab.toml."),
        )
    return made


def _is_known(file: dict[str, Any], package: Package) -> bool:
    return f"sha256:{file['hashes'].get('sha256')}" in package.hashes
