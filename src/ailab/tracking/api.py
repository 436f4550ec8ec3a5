"""MLflow's REST API over its socket: what runs are written with, and nothing else."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ailab.client import UnixConnection
from ailab.errors import AilabError, NotRunning

ANSWER_SECONDS = 20.0
# The most that one request may carry (MLflow's REST API, "Log Batch"), and what it keeps of a text.
MOST_METRICS, MOST_PARAMS, MOST_TAGS = 1000, 100, 100
LONGEST_KEY, LONGEST_PARAM, LONGEST_TAG = 250, 500, 5000


class Refused(AilabError):
    """MLflow has answered, and does not take it: trying again would not help."""


class Mlflow:
    """The server behind `socket`, whose paths begin with `prefix`. Raises `NotRunning` where it does not answer or says
    that it cannot, `Refused` where it does not take what it was asked."""

    def __init__(self, socket: Path, prefix: str) -> None:
        self._socket = socket
        self._prefix = prefix
        self._experiments: dict[str, str] = {}

    def answers(self) -> bool:
        try:
            return self._ask("GET", "/health", None)[0] == http.client.OK
        except NotRunning:
            return False

    def experiment(self, name: str) -> str:
        """The id of the experiment called `name`, made where there is none; one that was deleted comes back."""
        if name not in self._experiments:
            found = self._call("GET", f"experiments/get-by-name?experiment_name={quote(name)}", missing=True)
            if found is None:
                self._experiments[name] = self._made(name)
            else:
                known = found["experiment"]
                if known["lifecycle_stage"] == "deleted":
                    self._call("POST", "experiments/restore", {"experiment_id": known["experiment_id"]})
                self._experiments[name] = str(known["experiment_id"])
        return self._experiments[name]

    def _made(self, name: str) -> str:
        # By this its pages show trainings, not what is for language models.
        kind = {"key": "mlflow.experimentKind", "value": "custom_model_development"}
        return str(self._call("POST", "experiments/create", {"name": name, "tags": [kind]})["experiment_id"])

    def find_run(self, experiment: str, tag: str, value: str) -> str | None:
        """The id of the run of an experiment that has the tag, which tells it from all others."""
        query = {"experiment_ids": [experiment], "filter": f"tags.`{tag}` = '{value}'", "max_results": 1}
        runs = self._call("POST", "runs/search", query).get("runs", [])
        return str(runs[0]["info"]["run_id"]) if runs else None

    def create_run(self, experiment: str, name: str, user: str, started: float, tags: dict[str, str]) -> str:
        """A new run's id; `started` is in seconds since the epoch."""
        asked = {"experiment_id": experiment, "run_name": name, "user_id": user, "start_time": round(started * 1000)}
        made = self._call("POST", "runs/create", asked | {"tags": _pairs(tags)})
        return str(made["run"]["info"]["run_id"])

    def log(self, run: str, *, metrics: list[dict[str, Any]], params: dict[str, str], tags: dict[str, str]) -> None:
        """Metrics are `{"key", "value", "timestamp" (ms), "step"}`; no more of each than the `MOST_` of them."""
        body = {"run_id": run, "metrics": metrics, "params": _pairs(params), "tags": _pairs(tags)}
        self._call("POST", "runs/log-batch", body)

    def set_status(self, run: str, status: str, ended: float | None) -> None:
        """`status` as MLflow names it; `ended` in seconds since the epoch."""
        end = {} if ended is None else {"end_time": round(ended * 1000)}
        self._call("POST", "runs/update", {"run_id": run, "status": status, **end})

    def _call(self, method: str, path: str, body: Any = None, *, missing: bool = False) -> Any:
        status, data = self._ask(method, f"/api/2.0/mlflow/{path}", body)
        if missing and status == http.client.NOT_FOUND:
            return None
        if status >= http.client.INTERNAL_SERVER_ERROR or status == http.client.TOO_MANY_REQUESTS:
            raise NotRunning(f"MLflow: HTTP {status} {data[:200]!r}")
        if status != http.client.OK:
            raise Refused(f"MLflow: HTTP {status} {data[:500].decode(errors='replace')}")
        return json.loads(data or b"{}")

    def _ask(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        connection = UnixConnection(self._socket, timeout=ANSWER_SECONDS)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, self._prefix + path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise NotRunning(f"MLflow: {error or type(error).__name__}") from error
        finally:
            connection.close()


def _pairs(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]
