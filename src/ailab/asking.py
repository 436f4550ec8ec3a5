"""What people ask for from where they work, as jobs: paths are as a workspace sees them, and lead no further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from ailab.errors import Forbidden, NotFound, UsageError
from ailab.i18n import _
from ailab.jobs.wish import JobWish
from ailab.lab import Lab
from ailab.runtimes.base import Capability, TaskKind
from ailab.validation import complaint
from ailab.working import shared_folders


def workspace_wish(lab: Lab, asked: Mapping[str, Any]) -> JobWish:
    """A job as a program in a workspace asks for it, with the keys of job.toml. Its folder and inputs may be told from
    the lab's folder.

    Raises `UsageError` for what cannot be meant, `NotFound` for a path that is not there, and `Forbidden` where
    workspaces are containers for one that they do not all share: a job would bring them what they do not see.
    """
    wish = _checked(asked)
    inputs = [str(_here(lab, path)) for path in wish.inputs]
    return wish.model_copy(update={"cwd": str(_here(lab, wish.cwd or ".")), "inputs": inputs})


def notebook_wish(lab: Lab, path: str, words: Sequence[str], gpus: int) -> JobWish:
    """A notebook as a job: at `path` as JupyterLab names it, from the lab's folder, with `words` as they stand after
    its name on the command line. Raises what `workspace_wish` does."""
    if not path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise NotFound(_("There is no notebook {path}.").format(path=path))
    notebook = _here(lab, path)
    if notebook.suffix != ".ipynb" or not notebook.is_file():
        raise NotFound(_("There is no notebook {path}.").format(path=path))
    return _checked({"command": [notebook.name, *words], "cwd": str(notebook.parent), "gpus": gpus})


def _checked(asked: Mapping[str, Any]) -> JobWish:
    try:
        return JobWish.model_validate(asked)
    except ValidationError as refused:
        remedy = _("What it may be: ailab run --help")
        raise UsageError(complaint(refused.errors()[0]), remedy=remedy) from None


def _here(lab: Lab, path: str) -> Path:
    """Where on this machine something is that a workspace names."""
    if "\0" in path:
        raise NotFound(_("There is no file {path}.").format(path=path.replace("\0", "\\0")))
    place = PurePosixPath(path)
    first = "" if place.is_absolute() or not place.parts else place.parts[0]
    base = shared_folders(lab).get(first)
    found = (lab.paths.root / place if base is None else base.joinpath(*place.parts[1:])).resolve()
    if Capability.images in lab.runtime.site(TaskKind.job, lab.paths).capabilities and (
        base is None or not found.is_relative_to(base.resolve())
    ):
        raise Forbidden(
            _("{path} is in none of the folders that all tasks of the lab share.").format(path=path),
            remedy=_("Move it into one of them: {folders}").format(folders=", ".join(shared_folders(lab))),
        )
    return found
