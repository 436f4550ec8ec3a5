"""Jobs beside each other for the API and the portal: what differs, what each metric came to, the curves; and links."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from ailab import files
from ailab.access.services import MLFLOW_PREFIX, PORTAL_PREFIX
from ailab.daemon.parts import Parts
from ailab.errors import UsageError
from ailab.i18n import _
from ailab.jobs import comparing, progress
from ailab.jobs.gangs import task_prefix
from ailab.jobs.progress import Curve
from ailab.jobs.queue import Job
from ailab.jobs.snapshots import Snapshot
from ailab.jobs.view import job_json
from ailab.paths import JOB_PROGRESS, JOB_TRAINING
from ailab.tracking.reported import read_part

MOST_JOBS = 20
MOST_METRICS = 50
CURVE_POINTS = 200


def comparison(parts: Parts, numbers: Sequence[int]) -> dict[str, Any]:
    """Two jobs or more, in the order in which they were named. `metrics` and `curves` have a list for each metric, with
    null for a job that has not reported it. Raises `NotFound`, and `UsageError` for too few or too many."""
    wanted = list(dict.fromkeys(numbers))
    if not 2 <= len(wanted) <= MOST_JOBS:
        raise UsageError(
            _("From 2 to {most} jobs can be compared.").format(most=MOST_JOBS), remedy="ailab jobs compare 12 13"
        )
    jobs = [parts.jobs.get(number) for number in wanted]
    reported = [reported_by(parts, job.id) for job in jobs]
    names = list(dict.fromkeys(name for curves, _params in reported for name in curves))[:MOST_METRICS]
    snapshots = [Snapshot.from_json({"command": [], "cwd": "", "code": "", **job.snapshot}) for job in jobs]
    rows = comparing.varying(snapshots, [params for _curves, params in reported])
    return {
        "jobs": [job_json(job, {}, parts.lab.paths) | {"links": links(parts, job)} for job in jobs],
        "differences": [row.to_json() for row in rows],
        "metrics": {
            name: [None if one is None else one.to_json() for one in _reached(name, reported)] for name in names
        },
        "curves": {name: [_shown(curves.get(name)) for curves, _params in reported] for name in names},
        "links": {"tensorboard": tensorboard_link(parts, wanted)},
    }


def _reached(name: str, reported: Sequence[tuple[dict[str, Curve], Any]]) -> list[comparing.Reached | None]:
    return [comparing.reached(name, curves.get(name, [])) for curves, _params in reported]


def _shown(curve: Curve | None) -> list[tuple[float, float | None]] | None:
    if curve is None:
        return None
    thinner = progress.coarser(curve, CURVE_POINTS)
    return [(where, value if math.isfinite(value) else None) for where, value in thinner]


def reported_by(parts: Parts, job: int) -> tuple[dict[str, Curve], dict[str, str]]:
    """What a job has reported, by metric, and the parameters of its trainings."""
    folder = parts.lab.paths.jobs / str(job)
    curves: dict[str, Curve] = {}
    params: dict[str, str] = {}
    offset, more = 0, True
    while more:
        part = read_part(folder / JOB_TRAINING, offset)
        offset, more = part.offset, part.more
        params = part.params | params
        for one in part.metrics:
            curve = curves.setdefault(one["key"], [])
            # What was computed again after a start anew takes the place of what was there before.
            while curve and curve[-1][0] >= one["step"]:
                curve.pop()
            curve.append((float(one["step"]), float(one["value"])))
    return _with_progress(parts, job, curves), params


def curves_of(parts: Parts, job: int) -> dict[str, Curve]:
    """What a job has reported, by metric, in at most `CURVE_POINTS` each."""
    curves, _params = reported_by(parts, job)
    return {name: progress.coarser(curve, CURVE_POINTS) for name, curve in curves.items()}


def _with_progress(parts: Parts, job: int, epochs: dict[str, Curve]) -> dict[str, Curve]:
    """Curves epoch by epoch, and those of the job's progress in place of what has less than two epochs yet."""
    if epochs and all(len(curve) > 1 for curve in epochs.values()):
        return epochs
    points = progress.read(parts.lab.paths.jobs / str(job) / JOB_PROGRESS)
    reported = {name: points.series(name) for name in points.latest} if points is not None else {}
    return reported | {name: curve for name, curve in epochs.items() if name not in reported or len(curve) > 1}


def links(parts: Parts, job: Job) -> dict[str, str | None]:
    """Where a browser finds a job's run in MLflow and its curves in TensorBoard: paths; null where there are none."""
    known = files.read_json(parts.lab.paths.mlflow_runs / f"{task_prefix(job.id)}.json") or {}
    run, experiment = known.get("run"), known.get("experiment")
    mlflow = f"{MLFLOW_PREFIX}/#/experiments/{experiment}/runs/{run}" if run and experiment else None
    return {"mlflow": mlflow, "tensorboard": tensorboard_link(parts, [job.id])}


def tensorboard_link(parts: Parts, jobs: Sequence[int]) -> str | None:
    """TensorBoard with the runs of these jobs alone; None where none of them has written for it."""
    folder = parts.lab.paths.logs / "jobs"
    written = [job for job in jobs if next((folder / str(job)).rglob("*tfevents*"), None) is not None]
    if not written:
        return None
    chosen = f"^jobs/({'|'.join(map(str, written))})(/|$)"
    return f"{PORTAL_PREFIX}tensorboard/?runFilter={quote(chosen, safe='')}#timeseries"
