"""Ending a person's logins: at the hub, which knows their tokens, and at their workspace, which believes its word."""

from __future__ import annotations

import http.client
from contextlib import suppress
from typing import Any

from ailab.access.hub_client import hub_call
from ailab.access.workspace_client import WorkspaceServer
from ailab.daemon.parts import Parts
from ailab.errors import AilabError, NotRunning
from ailab.i18n import _

_WORKSPACE_TOKEN = "JUPYTERHUB_API_TOKEN"  # noqa: S105  a variable's name


def end_sessions(parts: Parts, user: str, token: str, browser: str) -> dict[str, Any]:
    """End all logins of `user` but the session that `token` and the hub's session id `browser` belong to; the workspace
    goes on with its own token. Answers with the hub's new cookie for that session."""
    task_id = f"workspace-{user}"
    spec = parts.lab.runtime.spec(task_id)
    keep = [token, *([spec.environment.get(_WORKSPACE_TOKEN, "")] if spec is not None else [])]
    body = {"keep": [one for one in keep if one], "browser": browser}
    try:
        status, cookie = hub_call(parts.lab.paths, "DELETE", f"/users/{user}/logins", body)
    except NotRunning:
        status, cookie = http.client.SERVICE_UNAVAILABLE, None
    if status != http.client.OK:
        raise AilabError(
            _(
                "Your password is changed, but your other logins could not be ended: the hub answers HTTP {status}."
            ).format(status=status),
            remedy=_("Change your password again."),
        )
    # One that does not run or answer knows no logins, or asks the hub about them when it does.
    with suppress(AilabError):
        WorkspaceServer.of(parts.lab.runtime, user).call("DELETE", "/ailab/logins")
    answer: dict[str, Any] = cookie
    return answer
