"""A job as a run of MLflow: what it is called, whose it is, and what it ran, as tags and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from ailab.jobs.differences import options_of
from ailab.jobs.gangs import task_prefix
from ailab.jobs.model import JobState
from ailab.jobs.queue import Job
from ailab.jobs.snapshots import Snapshot
from ailab.paths import JOB_PROGRESS, JOB_RUN, JOB_TRAINING
from ailab.tracking.api import LONGEST_PARAM, LONGEST_TAG
from ailab.tracking.reported import key_of

STATUSES = {
    JobState.queued: "SCHEDULED",
    JobState.starting: "RUNNING",
    JobState.running: "RUNNING",
    JobState.done: "FINISHED",
    JobState.failed: "FAILED",
    JobState.stopped: "KILLED",
}
CLOSED = ("FINISHED", "FAILED", "KILLED")


@dataclass(frozen=True)
class Tracked:
    """What becomes a run. `key` is its name among what has been written down, the tag `mark` tells it from all other
    runs. `training` is the file of its Keras fits, `progress` that of its progress; `note` is where whoever trains
    finds which run it is. Times are seconds since the epoch."""

    key: str
    mark: tuple[str, str]
    experiment: str
    name: str
    user: str
    started: float
    status: str
    training: Path
    progress: Path | None = None
    note: Path | None = None
    ended: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)


def job_run(job: Job, folder: Path, root: Path) -> Tracked:
    """The run of a job that has begun, whose own folder is `folder`, of the lab at `root`."""
    snapshot = Snapshot.from_json(job.snapshot) if "code" in job.snapshot else None
    words = job.request.command
    source = next((word for word in words if word.endswith((".py", ".ipynb", ".sh"))), words[0])
    kind = "NOTEBOOK" if source.endswith(".ipynb") else "JOB"
    tags = {
        "ailab.job": str(job.id),
        "ailab.attempt": str(job.attempt),
        "ailab.command": " ".join(snapshot.command if snapshot is not None else ()),
        "ailab.folder": job.request.cwd,
        "ailab.repeats": "" if job.repeats is None else str(job.repeats),
        "ailab.reason": job.reason,
        "ailab.note": job.note,
        "mlflow.user": job.owner,
        "mlflow.source.name": source,
        "mlflow.source.type": kind,
        **(_of_snapshot(snapshot) if snapshot is not None else {}),
    }
    params = {f"args.{key_of(name.lstrip('-'))}": value for name, value in _arguments(snapshot).items()}
    return Tracked(
        key=task_prefix(job.id),
        mark=("ailab.job", str(job.id)),
        experiment=experiment_of(job.owner, Path(job.request.cwd), root),
        name=job.name,
        user=job.owner,
        started=job.started_at or job.submitted_at,
        status=STATUSES[JobState(job.state)],
        training=folder / JOB_TRAINING,
        progress=folder / JOB_PROGRESS,
        note=folder / JOB_RUN,
        ended=job.ended_at,
        tags={name: value[:LONGEST_TAG] for name, value in tags.items() if value},
        params={name: value[:LONGEST_PARAM] for name, value in params.items() if value},
    )


def _arguments(snapshot: Snapshot | None) -> dict[str, str]:
    """What the script was told, by option; what stands for itself by its place."""
    if snapshot is None or not snapshot.command:
        return {}
    words = list(snapshot.command[1:])
    if PurePath(snapshot.command[0]).name.startswith("python") and words and not words[0].startswith("-"):
        words = words[1:]
    return {} if "-c" in words[:2] else options_of(words)


def _of_snapshot(one: Snapshot) -> dict[str, str]:
    git = one.git
    known: dict[str, Any] = {
        "ailab.code": one.code,
        "ailab.generation": one.generation,
        "ailab.lock": one.lock,
        "ailab.python": one.python,
        "ailab.seed": one.seed,
        "ailab.host": one.host,
        "ailab.gpus": ", ".join(one.gpus),
        "ailab.inputs": "\n".join(f"{each.path} {each.how} {each.digest}" for each in one.inputs),
        "ailab.version": one.ailab,
        "ailab.taken_at": one.taken_at,
    }
    if git is not None:
        known |= {"ailab.git.branch": git.branch, "ailab.git.dirty": None if git.dirty is None else str(git.dirty)}
        known |= {"mlflow.source.git.commit": git.commit, "mlflow.source.git.branch": git.branch}
    return {name: str(value) for name, value in known.items() if value not in (None, "")}


def experiment_of(owner: str, folder: Path, root: Path) -> str:
    """What is compared with each other as a rule: the runs of one person in one folder."""
    place = folder.relative_to(root) if folder.is_relative_to(root) else PurePath(folder.name)
    return f"{owner}/{place}" if str(place) not in ("", ".") else owner
