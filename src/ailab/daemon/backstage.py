"""The daemon's side of the portal: what its pages may ask and do."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from fastapi import FastAPI

from ailab import events
from ailab.access.notebook_command import asked_for
from ailab.access.secret_files import secret
from ailab.asking import notebook_wish, workspace_wish
from ailab.daemon.comparison import comparison, tensorboard_link
from ailab.daemon.disk_answers import name_full_disks
from ailab.daemon.job_views import job_list, job_log, lease_view, one_job
from ailab.daemon.parts import Parts
from ailab.daemon.routes.jobs import repeated, submitted
from ailab.daemon.status import is_well
from ailab.errors import NotFound
from ailab.jobs.output import Output
from ailab.portal.app import create_portal


class DaemonBackstage:
    """Implements `portal.backstage.Backstage` over the daemon's parts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        paths = parts.lab.paths
        self.hub_socket: Path = paths.hub_socket
        self.service_token = secret(paths, "service-token")
        self.language: str = parts.lab.settings.lab.language
        self.notebooks: Path = paths.root / "notebooks"
        self.forwarded = {"tensorboard": paths.run / "tensorboard.sock", "mlflow": paths.mlflow_socket}

    def prepare(self, tool: str) -> None:
        if tool == "mlflow":
            self._parts.mlflow.ready()

    def status(self) -> dict[str, Any]:
        return self._parts.status()

    def is_well(self) -> bool:
        return is_well(self._parts.health())

    def events(self, limit: int) -> list[dict[str, Any]]:
        return events.newest(self._parts.lab.store, limit)

    def must_change_password(self, user: str) -> bool:
        return self._parts.users.must_change(user)

    def may_replace_password(self, user: str) -> bool:
        return self._parts.users.may_replace(user)

    def change_password(self, user: str, new: str, current: str | None, address: str) -> None:
        self._parts.users.change_password(user, new, current=current, address=address)

    def workspace_note(self, user: str) -> str:
        """What `user` should know of their workspace beside its state; empty where there is nothing."""
        try:
            return str(self._parts.supervisor.task(f"workspace-{user}").to_json()["note"])
        except NotFound:
            return ""

    def leases(self) -> dict[str, Any]:
        return lease_view(self._parts)

    def jobs(self, limit: int) -> dict[str, Any]:
        return job_list(self._parts, self._parts.jobs.find(limit=limit))

    def job(self, job: int) -> dict[str, Any]:
        return one_job(self._parts, job, curves=True)

    def compared(self, jobs: list[int]) -> dict[str, Any]:
        return comparison(self._parts, jobs)

    def tensorboard_of(self, jobs: list[int]) -> str | None:
        return tensorboard_link(self._parts, jobs)

    def job_output(self, job: int, lines: int) -> list[str]:
        return list(Output(self._parts.lab.runtime, job).lines(lines))

    def job_log(self, job: int, member: int, after: int) -> dict[str, Any]:
        return job_log(self._parts, job, member, after)

    def find_jobs(self, state: str, owner: str, name: str, limit: int) -> dict[str, Any]:
        states = [one for one in state.split(",") if one]
        return job_list(self._parts, self._parts.jobs.find(states=states, owner=owner, name=name, limit=limit))

    def run_job(self, user: str, wish: dict[str, Any]) -> dict[str, Any]:
        return submitted(self._parts, user, workspace_wish(self._parts.lab, wish))

    def rerun_job(self, job: int, user: str) -> dict[str, Any]:
        return repeated(self._parts, user, job)

    def stop_job(self, job: int, user: str) -> None:
        self._parts.jobs.ask_to_stop(job, user, actor=user)

    def is_admin(self, user: str) -> bool:
        return self._parts.users.is_admin(user)

    def run_notebook(self, user: str, path: str, words: list[str], gpus: int) -> dict[str, Any]:
        """Queue a notebook as a job of `user`. Answers with its number, and the path of its executed copy."""
        wish = notebook_wish(self._parts.lab, path, words, gpus)
        (job,) = submitted(self._parts, user, wish)["jobs"]
        notebook = asked_for(wish.command)
        assert notebook is not None, "that is what was wished"
        return {"job": job, "output": str(PurePosixPath(path).parent / notebook.output_of(job))}


def portal_application(parts: Parts) -> FastAPI:
    app = create_portal(DaemonBackstage(parts))
    name_full_disks(app, parts.lab)
    return app
