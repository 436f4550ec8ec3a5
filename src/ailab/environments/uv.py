"""uv, the resolver and installer: one wrapper, and its failures in our words."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ailab import command, downloads
from ailab.environments.uv_errors import WrongHash, explain
from ailab.errors import AilabError, DiskFull
from ailab.i18n import _
from ailab.paths import MachinePaths, closed_folder
from ailab.settings import MirrorsSection

INSTALL_SECONDS = 3600.0
# About what an environment with TensorFlow takes; a caller that knows better says so.
_USUAL_MB = 2000
_PASSED_ON = re.compile(r"(?i)lang|lc_\w+|tz|tmpdir")


@dataclass(frozen=True)
class Uv:
    """uv with a machine's cache and a lab's mirrors. Raises `AilabError` that names the address and the remedy."""

    machine: MachinePaths
    mirrors: MirrorsSection

    @property
    def program(self) -> str:
        """The launcher's uv, which it names to us and notes in the control venv; else the one installed beside us."""
        named = os.environ.get("AILAB_UV")
        if named:
            return named
        noted = Path(sys.prefix, ".uv")
        if noted.is_file():
            return noted.read_text(encoding="utf-8")
        from uv import find_uv_bin

        return str(find_uv_bin())

    @property
    def index(self) -> str:
        """The package index in use: the lab's mirror, else the caller's own (uv's variable, or pip's); empty: PyPI."""
        return downloads.index(self.mirrors, os.environ)

    def environment(self) -> dict[str, str]:
        variables = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
        variables |= downloads.variables(self.mirrors, os.environ)
        variables |= {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.environ.get("HOME", "/"),
            "UV_CACHE_DIR": str(self.machine.cache / "uv"),
            "UV_PYTHON_INSTALL_DIR": str(self.machine.pythons),
            "UV_NO_CONFIG": "1",
            "UV_NO_PROGRESS": "1",
            "UV_LINK_MODE": "hardlink",
            "UV_PYTHON_DOWNLOADS": "manual",
        }
        if not self.mirrors.pypi and os.environ.get("UV_INDEX"):
            variables["UV_INDEX"] = os.environ["UV_INDEX"]
        return variables

    def sync(
        self,
        python: Path,
        requirements: Path,
        *options: str,
        on_line: Callable[[str], None] | None = None,
        needed_mb: int = _USUAL_MB,
        keep_open: Sequence[int] = (),
        config: Path | None = None,
    ) -> None:
        """Make the environment of `python` what a requirements file with hashes names, and nothing else: from the
        machine's own wheels where a bundle has brought them all, else from the index. `config` as in `run`."""
        words: tuple[str | Path, ...] = ("pip", "sync", "--python", python, "--require-hashes", *options, requirements)
        wheels = self.machine.wheels
        if next(wheels.glob("*.whl"), None) is not None:
            own = ("--offline", "--no-index", "--find-links", wheels)
            try:
                self.run(*words, *own, on_line=on_line, needed_mb=needed_mb, keep_open=keep_open, source=str(wheels))
                return
            except (DiskFull, WrongHash):
                raise
            except AilabError:
                pass  # They do not have all of it.
        self.run(*words, on_line=on_line, needed_mb=needed_mb, keep_open=keep_open, config=config)

    def run(
        self,
        *words: str | Path,
        cwd: Path | None = None,
        on_line: Callable[[str], None] | None = None,
        needed_mb: int = _USUAL_MB,
        keep_open: Sequence[int] = (),
        source: str = "",
        config: Path | None = None,
    ) -> str:
        """Run uv; its standard output. `needed_mb` is what the person is told when the disk is full, `source` where the
        packages come from when it is not the index, `config` uv's settings; `keep_open` as in `command.run`."""
        _close(self.machine.cache)
        variables = self.environment()
        if config is not None:
            del variables["UV_NO_CONFIG"]
            variables["UV_CONFIG_FILE"] = str(config)
        try:
            argv = [self.program, *words]
            return command.run(
                argv, timeout=INSTALL_SECONDS, env=variables, cwd=cwd, on_line=on_line, keep_open=keep_open
            ).stdout
        except command.CommandFailed as error:
            source = source or self.index or "PyPI"
            known = explain(error.detail, index=source, cache=self.machine.cache, needed_mb=needed_mb)
            if known is not None:
                raise known from error
            last = (error.detail.splitlines() or [error.message])[-1].strip()
            raise AilabError(
                _("uv could not do its work: {last}").format(last=last),
                remedy=_("What it printed is below; ailab up tries again."),
                detail=error.detail,
            ) from error


def _close(cache: Path) -> None:
    """Let nobody else enter the folder of uv's cache, in which each package has a lock that everybody may write. Those
    from before it was closed are removed once: others may still hold them."""
    closed_folder(cache)
    noted = cache / "closed"
    if noted.exists():
        return
    for inside, folders, names in os.walk(cache / "uv"):
        # What is unpacked there are packages.
        folders[:] = [name for name in folders if not name.startswith("archive-")]
        for path in (Path(inside, name) for name in names if name.endswith(".lock")):
            with contextlib.suppress(OSError):
                if path.stat().st_size == 0:
                    path.unlink()
    noted.touch()
