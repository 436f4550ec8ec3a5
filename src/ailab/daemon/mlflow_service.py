"""MLflow's server: installed when the lab is up and idle, started when somebody needs it, and how it stands."""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import suppress
from enum import StrEnum
from typing import Any

from ailab import files
from ailab.access import tools
from ailab.access.services import MLFLOW_PREFIX, mlflow_spec
from ailab.daemon.supervisor import Supervisor
from ailab.errors import NotFound, NotRunning
from ailab.i18n import _
from ailab.lab import Lab
from ailab.paths import private_folder
from ailab.runtimes.base import TaskKind, TaskSpec, TaskState
from ailab.tracking.api import Mlflow
from ailab.tracking_setup import problem_file
from ailab.waiting import wait_for

# The lab's first cells come first; and who has no network now may have one later.
INSTALL_AFTER_SECONDS = 20.0
AGAIN_SECONDS = 600.0
# It loads for some seconds; on a machine that has much to do, for more.
START_SECONDS = 60.0
# One that has answered is not asked again for so long.
BELIEVED_SECONDS = 10.0
_INSTALLING = "install-mlflow"
_RUNNING = "mlflow"


class MlflowState(StrEnum):
    """`off`: lab.toml says so. `missing`: not installed yet. `installed`: it starts when it is needed."""

    off = "off"
    missing = "missing"
    installing = "installing"
    installed = "installed"
    starting = "starting"
    running = "running"


class MlflowService:
    """Wanted from the first need on, and from then on in each `up`: a lab in which nobody trains does without its 200
    MB. Callers may be on any thread."""

    def __init__(self, lab: Lab, supervisor: Supervisor) -> None:
        self._lab = lab
        self._supervisor = supervisor
        self._install_at = time.monotonic() + INSTALL_AFTER_SECONDS
        self._wanted = False
        self._believed_until = 0.0
        self.api = Mlflow(lab.paths.mlflow_socket, MLFLOW_PREFIX)

    @property
    def is_on(self) -> bool:
        return self._lab.settings.tracking.mlflow

    def begin(self) -> None:
        """Before the loops of the daemon: what was needed before is started again, as these settings have it."""
        known = {task.spec.id for task in self._supervisor.tasks()}
        if self.is_on:
            private_folder(self._lab.paths.mlflow)
            if _RUNNING in known:
                self.need()
        elif _RUNNING in known:
            self._supervisor.unwant(_RUNNING, actor="daemon")

    def look(self) -> None:
        """Install it where that is still to be done, and it is time."""
        if not self.is_on or time.monotonic() < self._install_at:
            return
        if tools.mlflow_python(self._lab.machine) is None and not self._lab.machine.image.exists():
            self._supervisor.want(_install_spec(self._lab), owner="", actor="daemon")
        self._install_at = time.monotonic() + AGAIN_SECONDS

    def need(self) -> bool:
        """Have it run; whether it will, which it cannot before it is installed."""
        python = tools.mlflow_python(self._lab.machine) if self.is_on else None
        if python is None:
            return False
        if not self._wanted:
            self._supervisor.want(mlflow_spec(self._lab.paths, python), owner="", actor="daemon")
            self._wanted = True
        return True

    def ready(self, timeout: float = START_SECONDS) -> None:
        """Return when it answers. Raises `NotFound` where lab.toml has it off, `NotRunning` with the reason where it is
        not installed, `TimedOut` where it does not start."""
        if not self.is_on:
            raise NotFound(_("This lab has no MLflow: [tracking] mlflow is false in lab.toml."))
        if not self.need():
            known = self.state()
            raise NotRunning(_("MLflow: {note}").format(note=known["note"]), remedy=_("Wait a moment and reload."))
        if time.monotonic() > self._believed_until:
            wait_for(self.api.answers, timeout=timeout, what="MLflow")
            self._believed_until = time.monotonic() + BELIEVED_SECONDS

    def state(self) -> dict[str, Any]:
        """As the status document has it: `{"state", "note"}`."""
        state, note = self._state()
        return {"state": state, "note": note}

    def _state(self) -> tuple[MlflowState, str]:
        if not self.is_on:
            return MlflowState.off, ""
        if tools.mlflow_python(self._lab.machine) is None:
            if self._seen(_INSTALLING) in (TaskState.running, TaskState.starting):
                return MlflowState.installing, _("It is being installed.")
            why = files.read_json(problem_file(self._lab))
            if why is None:
                return MlflowState.missing, _(
                    "It is not installed yet; that comes when the lab has been up for a while."
                )
            reason = f"{why.get('message', '')} {why.get('remedy', '')}".strip()
            return MlflowState.missing, _("It is not installed yet: {reason}").format(reason=reason)
        seen = self._seen(_RUNNING)
        if seen == TaskState.running:
            return MlflowState.running, ""
        return (MlflowState.starting if self._wanted else MlflowState.installed), ""

    def _seen(self, task: str) -> str:
        try:
            return self._supervisor.task(task).seen.state
        except NotFound:
            return TaskState.absent


class Bell:
    """Who imports MLflow's client in a task connects here when the server does not answer: that starts it."""

    def __init__(self, lab: Lab, service: MlflowService) -> None:
        self._service = service
        self._path = lab.paths.mlflow_bell
        self._listening: socket.socket | None = None

    def answer(self) -> None:
        """Answer one visitor, if one comes within a second."""
        try:
            if self._listening is None:
                self._listening = self._listen()
            visitor, _address = self._listening.accept()
        except TimeoutError:
            return
        except OSError:
            if self._listening is not None:
                self._listening.close()
                self._listening = None
            raise
        with visitor:
            answer = b"yes\n" if self._service.need() else b"no\n"
            with suppress(OSError):
                visitor.settimeout(1.0)
                visitor.sendall(answer)

    def _listen(self) -> socket.socket:
        private_folder(self._path.parent)
        self._path.unlink(missing_ok=True)
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bell.bind(str(self._path))
            self._path.chmod(0o600)
            bell.listen(16)
            bell.settimeout(1.0)
        except BaseException:
            bell.close()
            raise
        return bell


def _install_spec(lab: Lab) -> TaskSpec:
    return TaskSpec(
        id=_INSTALLING,
        name=_INSTALLING,
        kind=TaskKind.chore,
        command=(sys.executable, "-P", "-m", "ailab.tracking_setup", str(lab.paths.root)),
        environment={**os.environ, "AILAB_HOME": str(lab.machine.home)},
        cwd="/",
        restart=False,
    )
