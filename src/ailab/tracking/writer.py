"""Writes runs into MLflow, each as far as it has come; what has been written stands in a file, so nothing is lost."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ailab import files
from ailab.jobs import progress
from ailab.tracking.api import MOST_METRICS, MOST_PARAMS, MOST_TAGS, Mlflow, Refused
from ailab.tracking.described import CLOSED, Tracked
from ailab.tracking.reported import points_after, read_part

T = TypeVar("T")


@dataclass
class Written:
    """What MLflow has of a run: where its files have been read to, which parameters (the first value of each stays
    there), a digest of the tags, the status. `refused`: why nothing more is tried."""

    experiment: str = ""
    run: str = ""
    offset: int = 0
    t: float = 0.0
    params: list[str] = field(default_factory=list)
    tags: str = ""
    status: str = ""
    refused: str = ""

    @property
    def is_closed(self) -> bool:
        return bool(self.refused) or self.status in CLOSED


class Writer:
    """Keeps in `folder` a file for each run."""

    def __init__(self, mlflow: Mlflow, folder: Path) -> None:
        self._mlflow = mlflow
        self._folder = folder

    def written(self, key: str) -> Written:
        """Nothing of a file of another form: what is written twice MLflow keeps once."""
        known = files.read_json(self._folder / f"{key}.json") or {}
        kinds = {name: type(value) for name, value in asdict(Written()).items()}
        mine = {name: value for name, value in known.items() if name in kinds}
        fits = all(
            isinstance(value, (int, float) if kinds[name] is float else kinds[name]) for name, value in mine.items()
        )
        return Written(**mine) if fits else Written()

    def write(self, one: Tracked) -> Written:
        """Bring the run up to what is reported now. May be called again at any time, also after a kill in its middle:
        what MLflow is told twice it keeps once. Raises `NotRunning` where MLflow does not answer."""
        known = self.written(one.key)
        if known.refused:
            return known
        try:
            self._begin(one, known)
            if one.note is not None and not os.path.lexists(one.note):
                _leave(one.note, json.dumps({"experiment": known.experiment, "run": known.run}))
            self._report(one, known)
            if known.status != one.status:
                self._mlflow.set_status(known.run, one.status, one.ended if one.status in CLOSED else None)
                known.status = one.status
                self._keep(one.key, known)
        except Refused as refused:
            # As of a run that somebody has deleted.
            known.refused = refused.message
            self._keep(one.key, known)
        return known

    def forget(self, key: str) -> None:
        (self._folder / f"{key}.json").unlink(missing_ok=True)

    def _begin(self, one: Tracked, known: Written) -> None:
        if known.run:
            return
        known.experiment = self._mlflow.experiment(one.experiment)
        # A kill may have come between the run's making and our note of it.
        found = self._mlflow.find_run(known.experiment, *one.mark)
        tags = dict([one.mark])
        known.run = found or self._mlflow.create_run(known.experiment, one.name, one.user, one.started, tags)
        self._keep(one.key, known)

    def _report(self, one: Tracked, known: Written) -> None:
        while True:
            part = read_part(one.training, known.offset)
            metrics, t = part.metrics, known.t
            if not part.offset and one.progress is not None:
                reported = progress.read(one.progress)
                metrics = points_after(reported, known.t)
                t = reported.last.t if reported is not None else known.t
            params = {name: value for name, value in {**one.params, **part.params}.items() if name not in known.params}
            tags, digest = dict(one.tags), _digest(one.tags)
            self._send(known.run, metrics, params, tags if digest != known.tags else {})
            changed = (part.offset, t, digest) != (known.offset, known.t, known.tags) or params
            known.offset, known.t, known.tags = part.offset, t, digest
            known.params += params
            if changed:
                self._keep(one.key, known)
            if not part.more:
                return

    def _send(self, run: str, metrics: list[dict[str, Any]], params: dict[str, str], tags: dict[str, str]) -> None:
        """In pieces that MLflow takes: the metrics after the parameters, which are what a list of runs shows first."""
        for some in _pieces(list(params.items()), MOST_PARAMS):
            self._mlflow.log(run, metrics=[], params=dict(some), tags={})
        for some in _pieces(list(tags.items()), MOST_TAGS):
            self._mlflow.log(run, metrics=[], params={}, tags=dict(some))
        for chunk in _pieces(metrics, MOST_METRICS):
            self._mlflow.log(run, metrics=chunk, params={}, tags={})

    def _keep(self, key: str, known: Written) -> None:
        files.replace(self._folder / f"{key}.json", json.dumps(asdict(known)), mode=0o600)


def _leave(path: Path, text: str) -> None:
    """Put a file where a job may write, too: through no link of its making, and not in vain where it has gone."""
    unfinished = path.with_name(f".{path.name}.new")
    with contextlib.suppress(OSError):
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as sink:
            sink.write(text)
        unfinished.replace(path)


def _pieces(things: list[T], size: int) -> list[list[T]]:
    return [things[start : start + size] for start in range(0, len(things), size)]


def _digest(tags: Any) -> str:
    return hashlib.sha256(json.dumps(dict(tags), sort_keys=True).encode()).hexdigest()[:16]
