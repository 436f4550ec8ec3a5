"""A job as a task: its environment's generation, its folder, its limits, and where it may leave what."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ailab.access import notebook_command
from ailab.environments.generations import Generation
from ailab.errors import AilabError, Forbidden, NotFound, UsageError
from ailab.i18n import _
from ailab.jobs import rendezvous
from ailab.jobs.code_store import CodeStore
from ailab.jobs.gangs import Member, Network, Strategy, network, task_prefix, variables
from ailab.jobs.progress import CLIENT_FOLDER
from ailab.jobs.queue import Job, Jobs
from ailab.jobs.rebuilding import materialize
from ailab.jobs.snapshots import Surroundings, take
from ailab.jobs.wish import JobWish
from ailab.lab import Lab
from ailab.paths import JOB_PROGRESS, JOB_RUN, JOB_TRAINING, SHARED_FOLDERS, LabPaths, private_folder
from ailab.resources.ledger import Lease
from ailab.runtimes.base import Capability, Mount, Site, TaskKind, TaskSpec

# All output of a job is kept up to this; past it the older half goes.
LOG_BYTES = 64 * 1024 * 1024
# Where a container has the folder of a job that is in none of the lab's own.
_WORK = "work"


@dataclass(frozen=True)
class Working:
    """Makes the tasks of jobs; each call writes down what that attempt is about to run."""

    lab: Lab
    jobs: Jobs

    def __call__(self, job: Job, leases: Sequence[Lease]) -> list[TaskSpec]:
        """What is run for a job that holds `leases`, one for each of its tasks.

        Raises `UsageError` where its folder is gone, `NotFound` where the lab has no environment, its image is not
        built, or what it repeats is not there any more.
        """
        # Of a lab that was moved away no job fails: it waits until the lab is up at its new place.
        self.lab.paths.state.stat()
        generation = _generation(self.lab, job)
        if job.request.code:
            folder = _rebuilt(self.lab, job)
        else:
            folder = Path(job.request.cwd)
            if not folder.is_dir():
                raise UsageError(
                    _("The folder {folder} is gone.").format(folder=folder),
                    remedy=_("Submit it again where its files are."),
                )
            self.jobs.note_snapshot(job.id, _snapshot(self.lab, job, generation, leases))
        placed = zip(job.members, leases, strict=True)
        return [job_spec(self.lab, job, member, lease, folder, generation) for member, lease in placed]


def _generation(lab: Lab, job: Job) -> Generation:
    """The environment that a job is to run in: the lab's, or that of the job that it repeats."""
    if job.request.generation:
        return lab.generations.get(job.request.generation)
    current = lab.generations.current()
    if current is None:
        raise NotFound(_("The lab has no environment yet."), remedy="ailab up")
    return current


def _snapshot(lab: Lab, job: Job, generation: Generation, leases: Sequence[Lease]) -> dict[str, Any]:
    """A store that cannot be written, as on a full disk, costs the snapshot, not the job; it is noted."""
    gpus = tuple(dict.fromkeys(gpu for lease in leases for gpu, _share in lease.gpus))
    around = Surroundings(generation.id, generation.python, generation.lock, generation.packages, gpus)
    try:
        return take(CodeStore(lab.paths.snapshots), job.request, around).to_json()
    except (AilabError, OSError) as error:
        return {"problem": str(error)}


def _rebuilt(lab: Lab, job: Job) -> Path:
    """The folder with the code of the job that this one repeats; made once, for all its attempts."""
    folder = private_folder(private_folder(lab.paths.jobs) / str(job.id)) / "code"
    if not folder.is_dir():
        materialize(CodeStore(lab.paths.snapshots), job.request.code, folder, Path(job.request.cwd))
    return folder


def job_spec(lab: Lab, job: Job, member: Member, lease: Lease, folder: Path, generation: Generation) -> TaskSpec:
    """A task of a job that runs in `folder`."""
    from ailab import containers

    private_folder(lab.paths.jobs)
    own = private_folder(lab.paths.jobs / str(job.id))
    (own / "checkpoints").mkdir(exist_ok=True)
    (lab.paths.logs / "jobs" / str(job.id)).mkdir(parents=True, exist_ok=True)
    site = lab.runtime.site(TaskKind.job, lab.paths)
    request = job.request
    connected = network(request.strategy, request.insecure_ports)
    spec = TaskSpec(
        id=member.task,
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
        gang=task_prefix(job.id) if connected else "",
        open_ports=connected == Network.open,
        attempt=job.attempt,
    )
    if request.strategy == Strategy.horovod and member.number == 0:
        place = f"{site.listen}:{job.ports[0]}"
        spec = replace(spec, command=rendezvous.program(request.command, python=site.python, place=place))
    if Capability.images not in site.capabilities:
        spec = _as_notebook(spec, job, site, generation.program, _kept_in(job, folder))
        found = _environment(lab, site, job, member, generation.program.parent, CLIENT_FOLDER)
        # Who can open the daemon's socket may ask there for jobs (`ailab_jobs`).
        found |= {"AILAB_DAEMON": str(lab.paths.daemon_socket), "AILAB_USER": job.owner}
        return replace(spec, environment=found)
    current = lab.generations.current()
    if current is None or current.lock != generation.lock:
        raise NotFound(
            _("There is no image of the environment {id}.").format(id=generation.id),
            remedy=_("Go back to it: ailab env use {id}, then ailab image build").format(id=generation.id),
        )
    client = site.lab.state / CLIENT_FOLDER.name
    extra = (
        Mount(str(own), str(site.lab.jobs / str(job.id))),
        Mount(str(CLIENT_FOLDER), str(client), read_only=True),
    )
    there, work = _seen_there(lab, site, job, folder)
    kept, more = _seen_there(lab, site, job, _kept_in(job, folder))
    programs = site.lab.current / "bin"
    spec = _as_notebook(replace(spec, cwd=there), job, site, programs / "python", Path(kept))
    spec = replace(spec, environment=_environment(lab, site, job, member, programs, client))
    spec = containers.contained(lab, spec, site, job.owner, (*extra, *(work or more)))
    # The PATH of this machine is left behind there, and the environment's programs with it.
    path = f"{programs}{os.pathsep}{spec.environment['PATH']}"
    return replace(spec, environment=spec.environment | {"PATH": path})


def _kept_in(job: Job, folder: Path) -> Path:
    """Where what a job makes beside its files belongs: for one that repeats another where the person has those, and not
    in the folder that was made for it."""
    asked = Path(job.request.cwd)
    return asked if asked.is_dir() else folder


def _as_notebook(spec: TaskSpec, job: Job, site: Site, program: Path, kept: Path) -> TaskSpec:
    """A task whose command begins with a notebook runs it, in a kernel of `program`; any other is as it was. `kept` has
    the executed copy."""
    from ailab.environments.kernel import EXTENSION, kernel_spec

    notebook = notebook_command.asked_for(spec.command)
    if notebook is None:
        return spec
    output = str(kept / notebook.output_of(job.id))
    kernel = kernel_spec(program, job.name, f"--ext={EXTENSION}")
    return replace(spec, command=notebook_command.program(notebook, output, python=site.python, kernel=kernel))


def _environment(lab: Lab, site: Site, job: Job, member: Member, programs: Path, client: Path) -> dict[str, str]:
    """The variables of a member, as they hold at `site`, where `programs` are the environment's and `client` has the
    client that reports progress. What the person has set comes last but for what tells the job where it is."""
    from ailab import downloads
    from ailab.access.services import base_environment, tracking_variables

    request, there = job.request, site.lab
    own = there.jobs / str(job.id)
    environment = base_environment(os.environ) | downloads.variables(lab.settings.mirrors, os.environ)
    path = f"{programs}{os.pathsep}{environment['PATH']}"
    environment |= {"PATH": path, "VIRTUAL_ENV": str(programs.parent), "PYTHONUNBUFFERED": "1"}
    environment |= {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "AILAB_LAB": str(there.root),
        "AILAB_MODELS": str(there.root / "models"),
    }
    environment |= {"AILAB_LANGUAGE": lab.settings.lab.language} | tracking_variables(lab.settings, there)
    if request.seed is not None:
        environment |= {"PYTHONHASHSEED": str(request.seed), "AILAB_SEED": str(request.seed)}
        # TensorFlow's own switch for equal results: its documentation of tf.config.experimental.enable_op_determinism.
        environment |= {"TF_DETERMINISTIC_OPS": "1"}
    found = [str(client), *filter(None, [request.variables.get("PYTHONPATH")])]
    environment |= request.variables | {"PYTHONPATH": os.pathsep.join(found)}
    if job.request.strategy:
        gang = zip(job.members, job.ports, strict=True)
        host = site.open_peers if request.insecure_ports else site.peers
        hosts = [f"{host.format(task=one.task)}:{port}" for one, port in gang]
        environment |= variables(request.strategy, request.workers, job.members, member.number, hosts)
    if member.number == 0:
        # One tells of all: the points of several would be mixed in the file.
        environment |= {"AILAB_PROGRESS": str(own / JOB_PROGRESS), "AILAB_TRAINING": str(own / JOB_TRAINING)}
    return environment | {
        "AILAB_JOB": str(job.id),
        "AILAB_JOB_NAME": job.name,
        "AILAB_ATTEMPT": str(job.attempt),
        "AILAB_CHECKPOINTS": str(own / "checkpoints"),
        "AILAB_RUN": str(own / JOB_RUN),
        "AILAB_LOGS": str(there.logs / "jobs" / str(job.id)),
    }


def _seen_there(lab: Lab, site: Site, job: Job, folder: Path) -> tuple[str, tuple[Mount, ...]]:
    """Where a container sees a folder of this machine, and the mount that it needs for that: none where it is in what
    all tasks of the lab share, or in the job's own folder.

    Raises `Forbidden` for one that leads out of there, or to ailab's own files: whoever works in a shared folder can
    put a link in the place of a folder, and a job must not bring them what they do not see otherwise.
    """
    real = folder.resolve()
    own = lab.paths.jobs / str(job.id)
    if real.is_relative_to(own.resolve()):
        return str(site.lab.jobs / str(job.id) / real.relative_to(own.resolve())), ()
    for name, source in shared_folders(lab).items():
        if real.is_relative_to(source.resolve()):
            return str(site.lab.root / name / real.relative_to(source.resolve())), ()
        if folder.is_relative_to(source):
            raise Forbidden(_("{folder} leads out of the lab's shared folders.").format(folder=folder))
    if real.is_relative_to(lab.paths.state.resolve()):
        raise Forbidden(_("{folder} is ailab's own.").format(folder=folder), remedy=_("Name another: --cwd DIR"))
    target = str(site.lab.root / _WORK)
    return target, (Mount(str(real), target),)


def shared_folders(lab: Lab) -> dict[str, Path]:
    """What everybody in the lab works with, by the names that it has in the lab's folder: where it is here."""
    shared = {name: lab.paths.root / name for name in SHARED_FOLDERS}
    return shared | {name: Path(mount.path) for name, mount in lab.settings.mounts.items()}


def refuse_impossible(lab: LabPaths, cwd: str, command: tuple[str, ...]) -> None:
    """Raises `UsageError` for a script or a folder that is not there, or words that a notebook does not take, before
    the job waits its turn to fail."""
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


def refuse_strategy(lab: Lab, wish: JobWish) -> None:
    """Raises `UsageError` for workers that cannot train together in that way, before they wait their turn to fail, and
    what `refuse_network` does."""
    if wish.insecure_ports and not network(wish.strategy or "", wish.insecure_ports):
        raise UsageError(
            _("--insecure-ports is for workers that connect to each other: {strategies}.").format(
                strategies=", ".join(one for one in Strategy if network(one, True))
            ),
            remedy=_("Leave it out; or name how they train: --strategy"),
        )
    if wish.strategy is None:
        return
    if wish.strategy == Strategy.mirrored and wish.gpu_fraction:
        raise UsageError(
            _("Workers that are mirrored have whole GPUs, one each."), remedy=_("Ask for so many: --gpus 1, or none")
        )
    if wish.strategy != Strategy.mirrored and notebook_command.asked_for(tuple(wish.command)) is not None:
        raise UsageError(
            _("A notebook runs in one process."), remedy=_("In that several GPUs can be used: --strategy mirrored")
        )
    current = lab.generations.current()
    if wish.strategy == Strategy.horovod and current is not None and "horovod" not in current.packages:
        raise UsageError(_("The lab's environment has no Horovod."), remedy=_("Add it: ailab env add horovod"))
    refuse_network(lab, network(wish.strategy, wish.insecure_ports))


def refuse_network(lab: Lab, wanted: Network | None) -> None:
    """Raises `AilabError`, with what to do, where the workers of a job cannot have the network that it wants."""
    refusal = lab.runtime.no_private_network(TaskKind.job) if wanted == Network.private else None
    if refusal is not None:
        raise refusal
