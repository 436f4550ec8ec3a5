"""Workspaces as this ailab and these settings would start them, when a daemon takes a lab over from another one."""

from __future__ import annotations

import logging
from functools import partial

from ailab.access.hub_client import drop_tcp_routes
from ailab.containers import workspace_of
from ailab.daemon.parts import Parts
from ailab.daemon.workspace_leases import runs_as, with_own_gpus, workspaces
from ailab.errors import AilabError
from ailab.runtimes.base import TaskKind, TaskSpec

logger = logging.getLogger(__name__)
MOVED = "moved-to-socket"


def renew_stopped(parts: Parts) -> None:
    """Have workspaces that do not run come back with current specifications: the hub is not asked again."""
    parts.supervisor.revise(partial(_renewed, parts))


def leave_tcp(parts: Parts) -> None:
    """Move workspaces that an older ailab has started on TCP ports to sockets. Anybody may listen on such a port once
    its workspace has ended, so no route may lead there then: call this when the older hub has been stopped."""
    drop_tcp_routes(parts.lab.paths)
    for task in workspaces(parts):
        if not _is_on_tcp(task.spec) and not _is_on_tcp(runs_as(parts, task)):
            continue
        spec = _renewed(parts, task.spec)
        if _is_on_tcp(spec):
            parts.supervisor.drop(spec.id)
        else:
            parts.supervisor.replace(spec, reason=MOVED)


def _renewed(parts: Parts, spec: TaskSpec) -> TaskSpec:
    """`spec` itself for what is not a workspace, and for one that cannot be started now."""
    if spec.kind != TaskKind.workspace:
        return spec
    user = spec.id.removeprefix("workspace-")
    try:
        return with_own_gpus(parts, workspace_of(parts.lab, user, spec.environment))
    except AilabError as refused:
        # As when its image is not built yet: the person hears it when they start the workspace.
        logger.warning("%s: %s %s", spec.id, refused.message, refused.remedy)
        return spec


def _is_on_tcp(spec: TaskSpec | None) -> bool:
    return spec is not None and any(isinstance(port, int) for port in spec.ports)
