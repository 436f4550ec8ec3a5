"""What `ailab status` and the portal show: the lab in one JSON document."""

from __future__ import annotations

import time
from typing import Any

from ailab import __version__, disk, shutdown, store_file
from ailab.access.services import web_url
from ailab.daemon.loop import LoopState
from ailab.environments.generations import Generation
from ailab.environments.open_kernels import open_kernels
from ailab.i18n import _
from ailab.lab import Lab
from ailab.resources.detect import Machine, detect_machine
from ailab.runtimes import cgroup
from ailab.runtimes.base import TaskKind, TaskState
from ailab.runtimes.reasons import note, silence_note

MEASURE_EVERY_SECONDS = 2.0
# Of a task that does not run.
_NOT_MEASURED: dict[str, Any] = {"memory_bytes": None, "memory_peak_bytes": None, "cpu_percent": None, "limits": None}
# What a person asks of an environment first; the page and the terminal show these.
NOTABLE = ("tensorflow", "keras", "numpy", "pandas", "scipy", "matplotlib", "scikit-learn", "tensorboard", "torch")


def environment_json(generation: Generation | None) -> dict[str, Any] | None:
    """The environment in use, or None before the first build."""
    if generation is None:
        return None
    packages = {name: version for name, version in generation.packages.items() if name in NOTABLE}
    return {
        "id": generation.id,
        "stack": generation.stack,
        "python": generation.python,
        "packages": packages,
        "built_at": generation.built_at,
        "size_bytes": generation.size_bytes,
    }


def overall(tasks: list[dict[str, Any]], *, hub_answers: bool, is_well: bool = True) -> str:
    """The lab's state: ready when each service runs, the hub answers and the daemon is well; degraded when one of its
    loops fails, is stuck or has ended."""
    services = [task for task in tasks if task["kind"] == "service"]
    running = [task["state"] == TaskState.running for task in services]
    if services and all(running) and hub_answers:
        return "ready" if is_well else "degraded"
    if not any(running):
        return "stopped" if not any(task["state"] == TaskState.starting for task in services) else "starting"
    if any(task["attempt"] > 1 and task["state"] != TaskState.running for task in services):
        return "degraded"
    return "starting"


def is_well(health: dict[str, Any]) -> bool:
    """Whether every loop of the daemon runs, and nothing fails."""
    return not health["faults"] and all(loop["state"] == LoopState.running for loop in health["loops"])


def stopped_status(lab: Lab) -> dict[str, Any]:
    """The status of a lab whose daemon does not answer, from what the runtime can see without it."""
    known = [_bare_task(lab, task_id) for task_id in lab.runtime.tasks()]
    # Jobs that have ended are kept by the thousand.
    tasks = [task for task in known if task["kind"] != TaskKind.job or task["state"] == TaskState.running]
    alive = any(task["state"] == TaskState.running for task in tasks)
    told = ""
    if (was := shutdown.moved_while_running(lab)) is not None:
        alive = True
        told = shutdown.moved_note(lab, was) + " " + _("Stop it: ailab down. Or start it here: ailab up")
    elif wrong := store_file.look(lab.paths.database):
        error = store_file.damaged(lab.paths.database, wrong)
        told = f"{error.message} {error.remedy}"
    health: dict[str, Any] = {"loops": [], "faults": [], "unreadable": []}
    return _document(lab, "degraded" if alive else "stopped", tasks, None, health, told)


def _bare_task(lab: Lab, task_id: str) -> dict[str, Any]:
    spec = lab.runtime.spec(task_id)
    known = {"name": spec.name, "kind": spec.kind} if spec else {"name": task_id, "kind": "service"}
    seen = lab.runtime.poll(task_id)
    unknown = {"owner": "", "wanted": True, "fault": None, "note": note(spec, seen) if spec else ""} | _NOT_MEASURED
    return {"id": task_id} | known | unknown | seen.to_json()


def _kernels(lab: Lab, current: Generation | None) -> list[dict[str, Any]]:
    """The open kernels by generation: one keeps the generation that it started with."""
    found = open_kernels(lab.paths, lab.machine)
    in_use = current.id if current is not None else ""
    return [{"generation": name, "count": count, "current": name == in_use} for name, count in found.items()]


def _document(
    lab: Lab,
    state: str,
    tasks: list[dict[str, Any]],
    machine: Machine | None,
    health: dict[str, Any],
    silence: str = "",
) -> dict[str, Any]:
    section, current = lab.settings.lab, lab.generations.current()
    return {
        "state": state,
        "url": web_url(lab.settings),
        "version": __version__,
        "lab": {"name": section.name, "root": str(lab.paths.root), "language": section.language},
        "environment": environment_json(current),
        "kernels": _kernels(lab, current),
        "gpus": [vars(gpu) for gpu in machine.gpus] if machine else [],
        "machine": {"cpus": machine.cpus, "memory_bytes": machine.memory_bytes} if machine else None,
        "tasks": tasks,
        "note": " ".join(filter(None, (silence, _full_disk(lab)))),
        **health,
        "mlflow": {"state": "off", "note": ""},
    }


def _full_disk(lab: Lab) -> str:
    full = disk.full_among(disk.folders_of(lab.paths.root, lab.machine))
    return f"{full.message} {full.remedy}" if full is not None else ""


class Measured:
    """CPU and memory of running tasks, measured at most every `MEASURE_EVERY_SECONDS`, when somebody looks."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        own = cgroup.own_limits()
        self.machine = detect_machine(own.cpus, own.memory_bytes)
        self._taken: dict[str, tuple[float, float]] = {}
        self._shown: dict[str, dict[str, Any]] = {}

    def document(self, tasks: list[dict[str, Any]], health: dict[str, Any], *, hub_answers: bool) -> dict[str, Any]:
        """The status document; `health` as `Parts.health` has it."""
        tasks = [task | self.usage(task["id"], task["state"]) for task in tasks]
        state = overall(tasks, hub_answers=hub_answers, is_well=is_well(health))
        silence = silence_note(self._lab.runtime.silence())
        return _document(self._lab, state, tasks, self.machine, health, silence)

    def usage(self, task_id: str, state: str) -> dict[str, Any]:
        """What a task uses: of the CPU in percent of one, since the look before; null where nothing is measured yet."""
        if state != TaskState.running:
            self._taken.pop(task_id, None)
            self._shown.pop(task_id, None)
            return _NOT_MEASURED
        at, cpu = self._taken.get(task_id, (0.0, 0.0))
        now = time.monotonic()
        if now - at < MEASURE_EVERY_SECONDS and task_id in self._shown:
            return self._shown[task_id]
        usage = self._lab.runtime.usage(task_id)
        percent = 100 * (usage.cpu_seconds - cpu) / (now - at) if at and usage.cpu_seconds >= cpu else None
        self._taken[task_id] = (now, usage.cpu_seconds)
        shown = {
            "memory_bytes": usage.memory_bytes,
            "memory_peak_bytes": usage.memory_peak_bytes or None,
            "cpu_percent": None if percent is None else round(percent, 1),
            "limits": self._lab.runtime.limits(task_id).to_json(),
        }
        self._shown[task_id] = shown
        return shown
