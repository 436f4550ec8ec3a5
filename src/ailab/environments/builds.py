"""What uv is told of packages that are built from their source against those that are installed beside them."""

from __future__ import annotations

from pathlib import Path

from ailab.environments.lock import Lock
from ailab.stacks import Stack


def settings(stack: Stack, lock: Lock, file: Path) -> Path | None:
    """Write uv's settings for those of the stack's `builds` that the lock has to `file`, and return it; None where it
    has none.

    uv builds each in an environment of its own, into which the rest of the lock is put: so it finds there what it will
    find when it runs, and uv keeps the wheel under that (https://docs.astral.sh/uv/reference/settings/, extra-build-
    dependencies and extra-build-variables).
    """
    import tomlkit

    wanted = {build.package: build.variables for build in stack.builds}
    built = [package.name for package in lock.packages if package.name in wanted]
    if not built:
        return None
    beside = [package.pin() for package in lock.packages if package.name not in built]
    document = {
        "extra-build-dependencies": {name: beside for name in built},
        "extra-build-variables": {name: dict(wanted[name]) for name in built},
    }
    file.write_text(tomlkit.dumps(document), encoding="utf-8")
    return file
