"""A queue of jobs and its worker on a folder, with a real store and real processes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

from job_worker import CAPACITY, make_specs

from ailab.jobs.model import JobRequest, JobState
from ailab.jobs.queue import Job, Jobs
from ailab.jobs.worker import Worker
from ailab.runtimes.base import TaskState
from ailab.runtimes.process import ProcessRuntime
from ailab.store import Store
from ailab.waiting import wait_for

END_SECONDS = 30.0


class Room:
    """Made anew on the same folder it finds everything again. What still runs at the end is ended."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "lab.db").open()
        self.jobs = Jobs(self.store)
        self.runtime = ProcessRuntime(folder / "tasks")
        self.worker = Worker(self.jobs, self.runtime, CAPACITY, make_specs)

    def __enter__(self) -> Room:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.worker.close()
        for task in self.runtime.tasks():
            self.runtime.stop(task, grace=0)

    def submit(self, code: str, **more: object) -> int:
        request = JobRequest(command=(sys.executable, "-c", code), cwd="/", **more)  # type: ignore[arg-type]
        return self.jobs.submit([request], owner="ada", actor="ada")[0]

    def until(self, job: int, *states: JobState) -> Job:
        def reached() -> Job | None:
            self.worker.step()
            seen = self.jobs.get(job)
            return seen if seen.state in states else None

        return wait_for(reached, timeout=END_SECONDS, what=f"job {job} to be {states}")

    def output(self, job: int, member: int | None = None) -> list[str]:
        return list(self.runtime.logs(f"job-{job}" + ("" if member is None else f"-{member}")))

    def running(self) -> list[str]:
        return [task for task in self.runtime.tasks() if self.runtime.poll(task).state != TaskState.exited]
