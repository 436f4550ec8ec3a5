"""Bringing a lab up: the steps, each of which does nothing when there is nothing to do."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ailab import disk, files, log_tail, shutdown, store_file
from ailab.caller_environment import passed_on
from ailab.client import Client
from ailab.command import start_detached
from ailab.errors import AilabError, Conflict, NotRunning
from ailab.i18n import _
from ailab.lab import Lab
from ailab.paths import private_folder
from ailab.waiting import TimedOut, interrupted_by, wait_for

if TYPE_CHECKING:
    from ailab.access.workspace_client import WorkspaceServer

DAEMON_SECONDS = 30.0
# A daemon that leaves waits for what its loops are doing, but not for ever.
LEAVE_SECONDS = 20.0
SERVICES_SECONDS = 90.0
OTHER_UP_SECONDS = 3600.0
GIVE_UP_AFTER_STARTS = 3
_POLITE_SECONDS = 60.0
_QUIET_SECONDS = 5.0
_LOG_LINES = 30

Tell = Callable[[str], None]


@contextmanager
def one_at_a_time(lab: Lab, tell: Tell) -> Iterator[None]:
    """Hold the lab's lock for what prepares the lab or starts it; another one's end is waited for, and said. `down`
    does not ask for it: see `shutdown`."""
    with files.locked(lab.paths.state / "up.lock", timeout=OTHER_UP_SECONDS, tell=tell):
        yield


def check_port(lab: Lab, holder: str = "") -> None:
    """Refuse before anything is started when somebody else holds the web port; `holder` is who, where that is known."""
    from ailab.resources import ports

    bind, port = lab.settings.access.bind, lab.settings.access.port
    try:
        if ports.is_free(bind, port):
            return
        held_by = ports.holder_pid(port)
        if held_by is not None and held_by == lab.runtime.poll("proxy").pid:
            return
    except PermissionError:
        raise AilabError(
            _("This account may not listen on port {port}.").format(port=port),
            remedy=_("Choose one from 1024 on: ailab up --port 8888"),
        ) from None
    except OSError as error:
        raise AilabError(
            _("Cannot listen on {bind}: {reason}.").format(bind=bind, reason=error.strerror),
            remedy=_('Set [access] bind in {file} to an address of this machine, or "127.0.0.1".').format(
                file=lab.paths.settings
            ),
        ) from None
    who = holder or ports.holder(port) or _("another program")
    free = ports.free_port(bind, port)
    raise Conflict(
        _("Port {port} is taken by {who}.").format(port=port, who=who),
        remedy=_("Choose another: ailab up --port {free} (it is kept in lab.toml), or stop that program.").format(
            free=free
        ),
    )


def ensure_daemon(lab: Lab, mark: int) -> None:
    """A daemon of this ailab and these settings: one that answers stays, another one is replaced (tasks go on).

    `mark` is `shutdown.stop_mark` of when the person asked for it: after a later `down` none is started.
    """
    from ailab.fingerprint import build_of

    lab.make_private_folders()
    private_folder(lab.paths.run)
    shutdown.wait_for_other_down(lab)
    shutdown.refuse_if_stopped(lab, mark)
    running = daemon_status(lab.client)
    if running is not None and running.get("build") == build_of(lab) and not _has_lost_loops(running):
        return
    if running is not None:
        shutdown.end_daemon(lab, "/api/leave", LEAVE_SECONDS)
    _refuse_damaged_stores(lab)
    before = log_tail.end_of(lab.paths.daemon_log)
    process = start_detached(
        [sys.executable, "-I", "-m", "ailab.daemon.main", "--lab", lab.paths.root, "--mark", str(mark)],
        log=lab.paths.daemon_log,
        env=passed_on(os.environ),
        cwd=lab.paths.root,
    )
    try:
        wait_for(
            lambda: process.poll() is not None or _answers(lab.client),
            timeout=DAEMON_SECONDS,
            what=_("the lab's daemon to answer"),
        )
    except TimedOut as error:
        error.detail = _last_lines(lab.paths.daemon_log, before)
        raise
    if not _answers(lab.client):
        shutdown.refuse_if_stopped(lab, mark)
        raise AilabError(
            _("The lab's daemon did not start."),
            remedy=_("Its log: {log}").format(log=lab.paths.daemon_log),
            detail=_last_lines(lab.paths.daemon_log, before),
        )


def _refuse_damaged_stores(lab: Lab) -> None:
    """Raises `DamagedStore` here, where a person reads it; the daemon could only log it."""
    store_file.check(lab.paths.database)
    # Without content it is one that JupyterHub was killed over, and fills now.
    if wrong := store_file.look(lab.paths.hub_database, empty=True):
        raise store_file.DamagedStore(
            _("JupyterHub's database {path} is damaged: {why}.").format(path=lab.paths.hub_database, why=wrong),
            remedy=_("Remove it; the hub makes another one, and everybody logs in again: rm {path}*").format(
                path=lab.paths.hub_database
            ),
        )


def _has_lost_loops(status: dict[str, Any]) -> bool:
    """Whether a loop of the daemon has ended or is stuck, which only another daemon repairs."""
    return any(loop["state"] in ("dead", "stuck") for loop in status.get("loops", ()))


def _answers(client: Client) -> bool:
    try:
        client.get("/api/users")
    except NotRunning:
        return False
    return True


def daemon_status(client: Client) -> dict[str, Any] | None:
    """The status that the daemon gives; None when it does not answer."""
    try:
        document: dict[str, Any] = client.get("/api/status")
    except NotRunning:
        return None
    return document


def ends_when_disk_is_full(lab: Lab) -> AbstractContextManager[None]:
    """Within, nobody waits for what a full disk keeps from happening: raises `DiskFull` once it is."""
    folders = disk.folders_of(lab.paths.root, lab.machine)
    return interrupted_by(lambda: disk.full_among(folders))


def wait_until_ready(lab: Lab, tell: Tell) -> dict[str, Any]:
    """The status once every service runs and the hub answers; on failure the log of the one that does not."""

    attempts: dict[str, int] = {}

    def look() -> dict[str, Any] | None:
        document: dict[str, Any] = lab.client.get("/api/status")
        for task in document["tasks"]:
            if task["attempt"] - attempts.setdefault(task["id"], task["attempt"]) >= GIVE_UP_AFTER_STARTS:
                raise _does_not_run(lab, task["id"])
        waiting = [
            task["name"] for task in document["tasks"] if task["kind"] == "service" and task["state"] != "running"
        ]
        tell(", ".join(waiting) or _("the hub answers soon"))
        # With all that runs a failing loop of the daemon keeps nobody out; `status` names it.
        return document if document["state"] == "ready" or (document["state"] == "degraded" and not waiting) else None

    try:
        return wait_for(look, timeout=SERVICES_SECONDS, what=_("the lab's services"), first=0.05)
    except TimedOut as error:
        broken = [task["id"] for task in lab.client.get("/api/status")["tasks"] if task["state"] != "running"]
        raise (_does_not_run(lab, broken[0]) if broken else error) from error


def _does_not_run(lab: Lab, task_id: str) -> AilabError:
    return AilabError(
        _("{task} does not run.").format(task=task_id),
        remedy=_("Its log: {log}").format(log=lab.paths.tasks / task_id / "log"),
        detail="\n".join(lab.runtime.logs(task_id, tail=_LOG_LINES)),
    )


def begin_workspace(lab: Lab, user: str) -> None:
    """Have the user's workspace started, and go on meanwhile. Whoever needs it waits for it, and hears why it does not
    start."""
    from ailab.access import hub_client

    def start() -> None:
        with suppress(AilabError):
            hub_client.start_server(lab.paths, user)

    threading.Thread(target=start, name="workspace", daemon=True).start()


def prove(lab: Lab, user: str, tell: Tell, *, politely: bool = False) -> dict[str, Any]:
    """Run the stack's proof in a fresh kernel of the user's workspace; `politely`, when nobody computes there."""
    from ailab.access import hub_client, kernel_client
    from ailab.access.workspace_client import WorkspaceServer
    from ailab.environments.kernel import read_proof
    from ailab.provision import stack_of

    generation = lab.generations.current()
    assert generation is not None, "the environment is built before the lab starts"
    tell(_("workspace"))
    hub_client.start_server(lab.paths, user)
    workspace = lab.runtime.poll(f"workspace-{user}")
    proven = {"generation": generation.id, "workspace": workspace.started_at, "lock": generation.lock}
    record = lab.paths.environment / "proven.json"
    if (known := files.read_json(record)) is not None and known.get("of") == proven and "proof" in known:
        return dict(known["proof"])
    server = WorkspaceServer.of(lab.runtime, user)
    if politely:
        _let_people_begin(server)
    tell(_("first cell"))
    code = stack_of(lab, generation).proof_code()
    output = kernel_client.run_cell(server, code)
    proof = read_proof(output, generation)
    files.replace(record, json.dumps({"of": proven, "proof": proof}))
    return proof


def _let_people_begin(server: WorkspaceServer) -> None:
    """Wait until nothing has been computed in the workspace for some seconds, but not for ever: who came as soon as the
    password was told has the machine's CPUs for their own first cell."""
    from ailab.access.activity import idle_seconds

    began = time.monotonic()

    def nobody_computes() -> bool:
        idle = idle_seconds(server)
        return min(idle, time.monotonic() - began) >= _QUIET_SECONDS

    # A server that does not tell is not waited for.
    with suppress(AilabError):
        wait_for(nobody_computes, timeout=_POLITE_SECONDS, what="an idle workspace", first=0.5, last=1.0)


def _last_lines(log: Path, before: log_tail.Position) -> str:
    """The last lines that were written to a log after `before`, for an error's detail."""
    return "\n".join(log_tail.text_after(log, before).splitlines()[-_LOG_LINES:])
