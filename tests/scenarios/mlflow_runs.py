"""What MLflow has of a lab's jobs and trainings, asked at its socket."""

from __future__ import annotations

from typing import Any

from conftest import CommandLine

from ailab.access.services import MLFLOW_PREFIX
from ailab.tracking.api import Mlflow
from ailab.waiting import wait_for

RUN_SECONDS = 90.0


def runs(lab: CommandLine, filter: str) -> list[Any]:
    """Of all experiments; none while MLflow is not there yet."""
    server = Mlflow(lab.paths.mlflow_socket, MLFLOW_PREFIX)
    if not server.answers():
        return []
    experiments = server._call("POST", "experiments/search", {"max_results": 100})["experiments"]
    ids = [one["experiment_id"] for one in experiments]
    return list(server._call("POST", "runs/search", {"experiment_ids": ids, "filter": filter}).get("runs", []))


def closed_run(lab: CommandLine, filter: str) -> Any:
    def look() -> Any:
        return next((run for run in runs(lab, filter) if run["info"]["status"] not in ("RUNNING", "SCHEDULED")), None)

    return wait_for(look, timeout=RUN_SECONDS, what=f"the run of {filter}", last=1.0)


def pairs(run: Any, kind: str) -> dict[str, Any]:
    return {one["key"]: one["value"] for one in run["data"].get(kind, [])}
