"""A job as a task: its environment's generation, its folder, its limits, and where it may leave what."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ailab.access import notebook_command
from ailab.errors import Forbidden, NotFound, UsageError
from ailab.i18n import _
from ailab.jobs.queue import Job
from ailab.jobs.wish import JobWish
from ailab.lab import Lab
from ailab.paths import SHARED_FOLDERS, LabPaths, private_folder
from ailab.resources.ledger import Lease
from ailab.runtimes.base import Capability, Mount, Site, TaskKind, TaskSpec

# All output of a job is kept up to this; past it the older half goes.
LOG_BYTES = 64 * 1024 * 1024
# Where a container has the folder of a job that is in none of the lab's own.
_WORK = "work"


def job_spec(lab: Lab, job: Job, lease: Lease) -> TaskSpec:
    """What is run for a job that holds `lease`.

    Raises `UsageError` where its folder is gone, `NotFound` where the lab has no environment or its image is not built.
    """
    from ailab import containers

    folder = Path(job.request.cwd)
    if not folder.is_dir():
        raise UsageError(
            _("The folder {folder} is gone.").format(folder=folder), remedy=_("Submit it again where its files are.")
        )
    private_folder(lab.paths.jobs)
    own = private_folder(lab.paths.jobs / str(job.id))
    (own / "checkpoints").mkdir(exist_ok=True)
    (lab.paths.logs / "jobs" / str(job.id)).mkdir(parents=True, exist_ok=True)
    site = lab.runtime.site(TaskKind.job, lab.paths)
    request = job.request
    spec = TaskSpec(
        id=job.task,
        name=job.name,
        kind=TaskKind.job,
        command=request.command,
        environment={},
        cwd=str(folder),
        grace=request.grace,
        log_bytes=LOG_BYTES,
        cpus=lease.cpus,
        memory_bytes=request.memory_bytes,
        restart=False,
        shm_bytes=lab.settings.resources.shm,
        pids=lab.settings.resources.pids,
        gpus=tuple(gpu for gpu, _share in lease.gpus),
    )
    if Capability.images not in site.capabilities:
        generation = lab.generations.current()
        if generation is None:
            raise NotFound(_("The lab has no environment yet."), remedy="ailab up")
        return _with_programs(spec, lab, site, job, generation.program.parent)
    extra = (Mount(str(own), str(site.lab.jobs / str(job.id))),)
    there, work = _seen_there(lab, site, folder)
    spec = _with_programs(replace(spec, cwd=there), lab, site, job, site.lab.current / "bin")
    return containers.contained(lab, spec, site, job.owner, (*extra, *work))


def _with_programs(spec: TaskSpec, lab: Lab, site: Site, job: Job, programs: Path) -> TaskSpec:
    """The task with what it runs and its variables, where the environment's programs are in `programs`."""
    from ailab.environments.kernel import kernel_spec

    notebook = notebook_command.asked_for(spec.command)
    if notebook is not None:
        kernel = kernel_spec(programs / "python", job.name)
        spec = replace(spec, command=notebook_command.program(notebook, job.id, python=site.python, kernel=kernel))
    return replace(spec, environment=_environment(lab, site, job, programs))


def _environment(lab: Lab, site: Site, job: Job, programs: Path) -> dict[str, str]:
    """Its variables, as they hold at `site`. What the person has set comes last but for what tells it where it is."""
    from ailab import downloads
    from ailab.access.services import base_environment

    request, there = job.request, site.lab
    own = there.jobs / str(job.id)
    environment = base_environment(os.environ) | downloads.variables(lab.settings.mirrors, os.environ)
    path = f"{programs}{os.pathsep}{environment['PATH']}"
    environment |= {"PATH": path, "VIRTUAL_ENV": str(programs.parent), "PYTHONUNBUFFERED": "1"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "2", "AILAB_LAB": str(there.root), "AILAB_MODELS": str(there.root / "models")}
    environment |= {"AILAB_LANGUAGE": lab.settings.lab.language}
    if request.seed is not None:
        environment |= {"PYTHONHASHSEED": str(request.seed), "AILAB_SEED": str(request.seed)}
        # TensorFlow's own switch for equal results: its documentation of tf.config.experimental.enable_op_determinism.
        environment |= {"TF_DETERMINISTIC_OPS": "1"}
    environment |= request.variables
    return environment | {
        "AILAB_JOB": str(job.id),
        "AILAB_JOB_NAME": job.name,
        "AILAB_ATTEMPT": str(job.attempt),
        "AILAB_CHECKPOINTS": str(own / "checkpoints"),
        "AILAB_PROGRESS": str(own / "progress.jsonl"),
        "AILAB_LOGS": str(there.logs / "jobs" / str(job.id)),
    }


def _seen_there(lab: Lab, site: Site, folder: Path) -> tuple[str, tuple[Mount, ...]]:
    """Where a container sees a folder of this machine, and the mount that it needs for that: none where it is in what
    all tasks of the lab share.

    Raises `Forbidden` for one that leads out of there, or to ailab's own files: whoever works in a shared folder can put
    a link in the place of a folder, and a job must not bring them what they do not see otherwise.
    """
    real = folder.resolve()
    for name, source in _shared(lab).items():
        if real.is_relative_to(source.resolve()):
            return str(site.lab.root / name / real.relative_to(source.resolve())), ()
        if folder.is_relative_to(source):
            raise Forbidden(_("{folder} leads out of the lab's shared folders.").format(folder=folder))
    if real.is_relative_to(lab.paths.state.resolve()):
        raise Forbidden(_("{folder} is ailab's own.").format(folder=folder), remedy=_("Name another: --cwd DIR"))
    target = str(site.lab.root / _WORK)
    return target, (Mount(str(real), target),)


def _shared(lab: Lab) -> dict[str, Path]:
    """What everybody in the lab works with, by the names that it has in the lab's folder: where it is here."""
    shared = {name: lab.paths.root / name for name in SHARED_FOLDERS}
    return shared | {name: Path(mount.path) for name, mount in lab.settings.mounts.items()}


def notebook_wish(lab: Lab, path: str, words: Sequence[str], gpus: int) -> JobWish:
    """A notebook as a job: at `path` as JupyterLab names it, from the lab's folder, with `words` as they stand after its
    name on the command line.

    Raises `NotFound` where it is not, and `Forbidden` where workspaces are containers and it is in none of the folders
    that they share: a job's own container would not have it.
    """
    place = PurePosixPath(path)
    if not path or place.is_absolute() or ".." in place.parts:
        raise NotFound(_("There is no notebook {path}.").format(path=path))
    base = _shared(lab).get(place.parts[0])
    notebook = (lab.paths.root / place if base is None else base.joinpath(*place.parts[1:])).resolve()
    if Capability.images in lab.runtime.site(TaskKind.job, lab.paths).capabilities and (
        base is None or not notebook.is_relative_to(base.resolve())
    ):
        raise Forbidden(
            _("{path} is in none of the folders that all tasks of the lab share.").format(path=path),
            remedy=_("Move it into one of them: {folders}").format(folders=", ".join(_shared(lab))),
        )
    if not notebook.is_file():
        raise NotFound(_("There is no notebook {path}.").format(path=path))
    return JobWish(command=[notebook.name, *words], cwd=str(notebook.parent), gpus=gpus)


def refuse_impossible(lab: LabPaths, cwd: str, command: tuple[str, ...]) -> None:
    """Raises `UsageError` for a script or a folder that is not there, or words that a notebook does not take, before the
    job waits its turn to fail."""
    folder = Path(cwd)
    if not folder.is_absolute() or not folder.is_dir():
        raise UsageError(_("There is no folder {folder}.").format(folder=cwd), remedy=_("Name one: --cwd DIR"))
    if folder.is_relative_to(lab.state):
        raise UsageError(_("{folder} is ailab's own.").format(folder=cwd), remedy=_("Name another: --cwd DIR"))
    notebook = notebook_command.asked_for(command)
    is_python = Path(command[0]).name.startswith("python") and len(command) > 1
    script = command[1] if is_python and command[1].endswith(".py") else ""
    if notebook is not None:
        script = notebook.notebook
    if script and not (folder / script).is_file():
        raise UsageError(
            _("There is no file {file} in {folder}.").format(file=script, folder=folder),
            remedy=_("Go to the folder that has it, or name the folder: --cwd DIR"),
        )
