"""The daemon's loops: which there are, and what each looks after. What may be slow has a loop of its own."""

from __future__ import annotations

from functools import partial

from ailab.access.hub_client import add_portal_route, restore_routes
from ailab.daemon.environment import EnvironmentWatch
from ailab.daemon.healing import LOOK_SECONDS as HEALING_SECONDS
from ailab.daemon.healing import Healing
from ailab.daemon.idle_gpus import LOOK_SECONDS as GPUS_SECONDS
from ailab.daemon.idle_gpus import IdleGpus
from ailab.daemon.job_loop import job_loop
from ailab.daemon.loop import Concern, Loop, recorder
from ailab.daemon.mlflow_service import Bell
from ailab.daemon.parts import Parts
from ailab.daemon.tracking_loop import EVERY_SECONDS as TRACKING_SECONDS
from ailab.daemon.tracking_loop import TrackingRuns
from ailab.runtimes.base import TaskState
from ailab.working import forget_old

# Stopping a task takes as long as its grace, and writing a run with many points as long as MLflow takes.
LONG_SECONDS = 900.0
TIDY_SECONDS = 3600.0


def loops_of(parts: Parts) -> list[Loop]:
    lab, supervisor = parts.lab, parts.supervisor
    healing = Healing(lab.paths, lab.runtime, supervisor)
    loops = [
        _loop(
            parts,
            "reconcile",
            Concern("tasks", supervisor.reconcile),
            Concern("environment", EnvironmentWatch(lab, supervisor).look),
        ),
        _loop(parts, "proxy", Concern("routes", ProxyRoutes(parts).look)),
        job_loop(parts),
        _loop(parts, "healing", Concern("tasks", healing.heal, every=HEALING_SECONDS, first=HEALING_SECONDS)),
        _loop(parts, "tidying", Concern("jobs", partial(forget_old, lab, parts.jobs), every=TIDY_SECONDS, first=60.0)),
    ]
    if lab.settings.resources.own_gpus:
        loops.append(_loop(parts, "gpus", Concern("workspaces", IdleGpus(parts).decide, every=GPUS_SECONDS)))
    if parts.mlflow.is_on:
        install = Concern("install", parts.mlflow.look, every=TRACKING_SECONDS, first=TRACKING_SECONDS)
        runs = Concern("runs", TrackingRuns(parts).step, every=TRACKING_SECONDS, first=TRACKING_SECONDS)
        bell = Bell(lab, parts.mlflow)
        loops += [
            _loop(parts, "tracking", install, runs),
            _loop(parts, "bell", Concern("visitors", bell.answer, every=0.0)),
        ]
    return loops


def _loop(parts: Parts, name: str, *concerns: Concern) -> Loop:
    return Loop(name, concerns, parts.leaving, recorder(parts.lab.store), stuck_after=LONG_SECONDS)


class ProxyRoutes:
    """A proxy that has just started knows no routes: give it the portal's, and have the hub give it the others."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._attempt = 0

    def look(self) -> None:
        seen = self._parts.lab.runtime.poll("proxy")
        if seen.state != TaskState.running or seen.attempt == self._attempt:
            return
        if add_portal_route(self._parts.lab.paths) and restore_routes(self._parts.lab.paths):
            self._attempt = seen.attempt
