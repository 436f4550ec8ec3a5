"""On which CPUs a task with a limit runs: those that are given to the fewest others, so that two tasks do not share one
while another idles."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from pathlib import Path

from ailab import files
from ailab.runtimes import task_files

# For so long a task that has just been given CPUs may have nobody yet who holds its lock.
_STARTING_SECONDS = 15.0


class Pins:
    """The CPUs that the tasks below a folder are given; `spec.json` has them as `on_cpus`."""

    def __init__(self, tasks: Path) -> None:
        self._tasks = tasks
        self._lock = threading.Lock()
        self._given: dict[str, tuple[list[int], float]] | None = None

    def choose(self, task_id: str, count: int) -> list[int]:
        """That many CPUs for a task that is about to start, or all that there are."""
        allowed = sorted(os.sched_getaffinity(0))
        if not 0 < count < len(allowed):
            return []
        with self._lock:
            given = self._living()
            taken = Counter(cpu for cpus, _since in given.values() for cpu in cpus)
            chosen = sorted(sorted(allowed, key=lambda cpu: taken[cpu])[:count])
            self._given = given | {task_id: (chosen, time.monotonic())}
            return chosen

    def _living(self) -> dict[str, tuple[list[int], float]]:
        """What the tasks that run have; the first time by what is written, for another may have started them."""
        if self._given is None:
            running = [one for one in task_files.ids(self._tasks) if self._runs(one)]
            kept = {one: task_files.read_kept(self._tasks / one) or {} for one in running}
            return {one: (known.get("on_cpus", []), 0.0) for one, known in kept.items()}
        young = time.monotonic() - _STARTING_SECONDS
        return {one: known for one, known in self._given.items() if self._runs(one, starting=known[1] > young)}

    def _runs(self, task_id: str, *, starting: bool = False) -> bool:
        folder = self._tasks / task_id
        return files.is_locked(folder / "lock") or (starting and not (folder / "exit.json").exists())
