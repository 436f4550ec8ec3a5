"""The loop of jobs: at once when something has changed, else once a second, more often while a job is young."""

from __future__ import annotations

from functools import partial

from ailab.daemon import workspace_leases
from ailab.daemon.loop import Concern, Loop, recorder
from ailab.daemon.parts import Parts
from ailab.daemon.progress_events import LOOK_SECONDS, ProgressEvents
from ailab.jobs import schedules

# It rests this many times as long as it has worked, a second at most: while thousands of jobs are submitted, each of
# which wakes it, the daemon is there for those who submit.
REST = 4.0


def job_loop(parts: Parts) -> Loop:
    concerns = (
        Concern("schedules", partial(schedules.submit_due, parts.lab.store, parts.jobs)),
        Concern("leases", partial(workspace_leases.settle, parts)),
        Concern("progress", ProgressEvents(parts).look, every=LOOK_SECONDS),
        Concern("worker", parts.worker.step, on_wake=True),
    )
    return Loop("jobs", concerns, parts.leaving, recorder(parts.lab.store), wake=parts.jobs.changed, rest=REST)
