"""What scenarios of jobs ask of a lab: queue one, wait for its end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import CommandLine

from ailab.waiting import wait_for

END_SECONDS = 300.0


def submitted(lab: CommandLine, *words: str) -> list[int]:
    """The jobs that `ailab run` with those words has queued."""
    jobs: list[int] = json.loads(lab.run("run", "--json", *words).stdout)["jobs"]
    return jobs


def ended(lab: CommandLine, job: int) -> Any:
    """A job once it has ended, in whatever way."""

    def look() -> Any:
        seen = lab.json("jobs", "show", str(job))
        return seen if seen["state"] in ("done", "failed", "stopped") else None

    return wait_for(look, timeout=END_SECONDS, what=f"job {job}")


@contextmanager
def folder_of(lab: CommandLine, kind: str) -> Iterator[Path]:
    """A new folder among the lab's notebooks, in which its account may write."""
    made = lab.lab / "notebooks" / f"{kind}-{time.monotonic_ns()}"
    made.mkdir()
    owner = lab.lab.stat()
    os.chown(made, owner.st_uid, owner.st_gid)
    yield made
