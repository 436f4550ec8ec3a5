"""A worker in a process of its own, for tests that kill it: `python job_worker.py FOLDER`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ailab.jobs.queue import Job, Jobs
from ailab.jobs.worker import Worker
from ailab.resources.ledger import Capacity, Lease
from ailab.runtimes.base import TaskKind, TaskSpec
from ailab.runtimes.process import ProcessRuntime
from ailab.store import Store

CAPACITY = Capacity(4, 8 * 1024**3)


def make_specs(job: Job, leases: Sequence[Lease]) -> list[TaskSpec]:
    """The job's command, in its folder, for each of its workers."""
    return [
        TaskSpec(
            id=member.task,
            name=job.name,
            kind=TaskKind.job,
            command=job.request.command,
            environment={"PATH": os.defpath, **job.request.variables, "AILAB_WORKER": str(member.number)},
            cwd=job.request.cwd,
            grace=job.request.grace,
            restart=False,
            attempt=job.attempt,
        )
        for member in job.members
    ]


def main(folder: Path) -> None:
    jobs = Jobs(Store(folder / "lab.db").open())
    worker = Worker(jobs, ProcessRuntime(folder / "tasks"), CAPACITY, make_specs)
    while True:
        jobs.changed.clear()
        jobs.changed.wait(worker.step())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
