"""Wheels as files: all that a requirements file names, fetched by hash into a folder that serves machines without a
network."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from ailab import command
from ailab.environments.uv import INSTALL_SECONDS, Uv
from ailab.environments.uv_errors import explain
from ailab.errors import AilabError
from ailab.i18n import _

_PIP = Path(__file__).parent.parent / "requirements" / "pip.txt"
# What a source distribution is built with: no lock names it, and without a network nothing else brings it.
_BUILDERS = ("setuptools", "wheel")
# pip from a folder of its own, under the Python that the wheels are for; its progress, too, on standard error.
_RUN = (
    "import os, runpy, sys; os.dup2(2, 1); sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module('pip', run_name='__main__', alter_sys=True)"
)
_FILE = re.compile(r"\s*(?:Downloading|Using cached) (\S+)")


def fetch(requirements: str, python: Path, folder: Path, uv: Uv, tell: Callable[[str], None]) -> None:
    """The files for `python` of all that `requirements` (lines with hashes) names, in `folder`, by pip download.

    Raises `AilabError` that names the address and the remedy, as `Uv.run` does.
    """
    with tempfile.TemporaryDirectory(prefix="ailab-pip-") as name:
        place = Path(name)
        uv.run(
            "pip", "install", "--quiet", "--target", place / "pip", "--python", python, "--require-hashes", "-r", _PIP
        )
        wanted = place / "requirements.txt"
        wanted.write_text(requirements, encoding="utf-8")
        _download(place / "pip", python, ("--require-hashes", "-r", wanted), folder, uv, tell)
        if any(not path.name.endswith(".whl") for path in folder.iterdir()):
            _download(place / "pip", python, _BUILDERS, folder, uv, tell)


def _download(
    pip: Path, python: Path, words: tuple[str | Path, ...], folder: Path, uv: Uv, tell: Callable[[str], None]
) -> None:
    def on_line(line: str) -> None:
        if file := _file_in(line):
            tell(file)

    options = ("--no-deps", "--no-input", "--progress-bar", "off", "--disable-pip-version-check", "--prefer-binary")
    # Its own settings files are left out, as uv's are.
    environment = uv.environment() | {"PIP_CONFIG_FILE": os.devnull, "PIP_CACHE_DIR": str(uv.machine.cache / "pip")}
    argv = [python, "-I", "-c", _RUN, pip, "download", *options, "--dest", folder, *words]
    try:
        command.run(argv, timeout=INSTALL_SECONDS, env=environment, on_line=on_line)
    except command.CommandFailed as error:
        known = explain(error.detail, index=uv.index or "PyPI", cache=folder, needed_mb=0)
        if known is not None:
            raise known from error
        last = (error.detail.splitlines() or [error.message])[-1].strip()
        raise AilabError(
            _("pip could not fetch the packages: {last}").format(last=last),
            remedy=_("What it printed is below; the same command tries again."),
            detail=error.detail,
        ) from error


def _file_in(line: str) -> str:
    """The file that a line of pip's tells of; empty for other lines."""
    match = _FILE.match(line)
    return match[1].rpartition("/")[2] if match is not None and not match[1].endswith(".metadata") else ""
