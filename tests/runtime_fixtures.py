"""The runtimes that the contract is tried on, and specifications of tasks for each. A new runtime joins the list."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import needs_engine
from python_image import python_image
from tried_tasks import Specs

from ailab.runtimes.base import Capability, Runtime
from ailab.runtimes.docker import DockerRuntime
from ailab.runtimes.process import ProcessRuntime

RUNTIMES = [ProcessRuntime, pytest.param(DockerRuntime, marks=[pytest.mark.docker, needs_engine])]


@pytest.fixture(params=RUNTIMES, ids=lambda one: one.name)
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    made: Runtime = request.param(tmp_path / "tasks")
    yield made
    for task_id in made.tasks():
        made.stop(task_id, grace=0)
        made.remove(task_id)


@pytest.fixture
def spec(runtime: Runtime) -> Specs:
    if Capability.images in runtime.capabilities:
        return Specs("/usr/bin/python3", python_image())
    return Specs(sys.executable)
