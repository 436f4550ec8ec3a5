"""How long nothing has happened in a workspace, by the word of its Jupyter server."""

from __future__ import annotations

import http.client
import math
from datetime import UTC, datetime
from typing import Any

from ailab.access.workspace_client import WorkspaceServer
from ailab.errors import AilabError
from ailab.i18n import _

_ANSWER_SECONDS = 10.0


def idle_seconds(server: WorkspaceServer) -> float:
    """Seconds since a kernel or a terminal of a workspace last did something: 0 while a kernel computes, infinite where
    none is open. Of a silent program in a terminal, or a thread that a cell has left, the server does not know.

    Raises `AilabError` when the server does not tell.
    """
    opened = [one for kind in ("kernels", "terminals") for one in _opened(server, kind)]
    if any(one.get("execution_state") == "busy" for one in opened):
        return 0.0
    moments = [datetime.fromisoformat(one["last_activity"]) for one in opened]
    return (datetime.now(UTC) - max(moments)).total_seconds() if moments else math.inf


def _opened(server: WorkspaceServer, kind: str) -> list[dict[str, Any]]:
    # Our own asking is not to pass for somebody's work.
    status, answer = server.call("GET", f"/api/{kind}?no_track_activity=1", timeout=_ANSWER_SECONDS)
    if status != http.client.OK or not isinstance(answer, list):
        raise AilabError(_("The workspace of {user} answers HTTP {status}.").format(user=server.user, status=status))
    return answer
