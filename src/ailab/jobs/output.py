"""The output of a job's tasks as one: of a gang, each line with its member's number before it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from queue import SimpleQueue

from ailab.jobs.gangs import tasks_among
from ailab.runtimes.base import Runtime


class Output:
    """What the tasks of a job have put out; `only` is the number of the one member that is asked for."""

    def __init__(self, runtime: Runtime, job: int, only: int | None = None) -> None:
        self._runtime = runtime
        self._job = job
        self._only = only
        # How many lines of each task are from attempts that have been followed.
        self._followed: dict[str, int] = {}

    def _tasks(self) -> dict[str, str]:
        """The tasks by what stands before their lines."""
        tasks = tasks_among(self._runtime.tasks(), self._job)
        if self._only is not None:
            tasks = tasks[self._only : self._only + 1]
        return {"": tasks[0]} if len(tasks) == 1 else {f"[{number}] ": task for number, task in enumerate(tasks)}

    def lines(self, tail: int | None = None) -> Iterator[str]:
        """What is kept, one member after the other: the last `tail` lines of each if given. Nothing where no task has
        been started yet."""
        for before, task in self._tasks().items():
            yield from (before + line for line in self._runtime.logs(task, tail=tail))

    def follow(self, tail: int | None = None) -> Iterator[str]:
        """The lines as they come, until the tasks have ended. Called again after that, for the next attempt, it has
        only what is new."""
        tasks = self._tasks()
        if len(tasks) == 1:
            ((_before, task),) = tasks.items()
            yield from self._new(task, tail)
            return
        come: SimpleQueue[str | None] = SimpleQueue()
        failures: list[BaseException] = []

        def pass_on(before: str, task: str) -> None:
            try:
                for line in self._new(task, tail):
                    come.put(before + line)
            except BaseException as error:
                failures.append(error)
            finally:
                come.put(None)

        for one in tasks.items():
            threading.Thread(target=pass_on, args=one, daemon=True).start()
        for _task in tasks:
            while (line := come.get()) is not None:
                yield line
        if failures:
            raise failures[0]

    def _new(self, task: str, tail: int | None) -> Iterator[str]:
        before = self._followed.get(task)
        lines = self._runtime.logs(task, follow=True, tail=tail if before is None else None)
        count = before or 0
        for line in islice(lines, count, None):
            count += 1
            yield line
        # Of what has been shown some may be kept no more, or with `tail` more be kept than has been shown.
        kept = sum(1 for _line in self._runtime.logs(task))
        self._followed[task] = kept if tail is not None and before is None else min(count, kept)
