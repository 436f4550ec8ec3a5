"""A cell in a kernel of a person's workspace, run at its server's socket (Jupyter messaging, version 5)."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import uuid
from typing import TYPE_CHECKING, Any

from ailab.access.workspace_client import WorkspaceServer
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.waiting import TimedOut, timed_out, wait_for

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

START_SECONDS = 120.0
CELL_SECONDS = 300.0
_ANSWER_SECONDS = 1.0
# An attempt to open a server that is just ending would take until its own timeout.
_OPEN_SECONDS = 5.0


def run_cell(server: WorkspaceServer, code: str) -> str:
    """Run `code` in a fresh kernel of a workspace; what it printed.

    Raises `AilabError` with the traceback when the cell fails. The kernel is removed afterwards, which takes a second
    that nobody needs to wait for.
    """
    status, kernel = server.call("POST", "/api/kernels", {"name": "python3"})
    if status != http.client.CREATED:
        raise AilabError(
            _("The workspace did not start a kernel (HTTP {status}).").format(status=status),
            remedy=_its_log(server.user),
        )
    try:
        return execute(server, kernel["id"], code)
    finally:
        with contextlib.suppress(OSError):
            door = server.connection(timeout=10)
            door.request("DELETE", server.path(f"/api/kernels/{kernel['id']}"), headers=server.headers)
            door.close()


def execute(server: WorkspaceServer, kernel: str, code: str) -> str:
    """Run `code` in a kernel that is there; what it printed.

    Raises `AilabError`: with the traceback when the cell fails, and when the kernel or its workspace has gone.
    """
    from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
    from websockets.sync.client import connect

    user, address = server.user, f"ws://localhost{server.path(f'/api/kernels/{kernel}/channels')}"

    def opened() -> ClientConnection | None:
        try:
            sock = server.connect(_OPEN_SECONDS)
            return connect(
                address,
                sock=sock,
                proxy=None,
                additional_headers=server.headers,
                max_size=None,
                open_timeout=_OPEN_SECONDS,
            )
        except (OSError, InvalidMessage):
            # The workspace is on its way back. (configurable-http-proxy, where it stands in between, then answers
            # "HTTP/1.1 503" without the space that the status line must have: handleProxyError.)
            return None

    try:
        socket = wait_for(opened, timeout=START_SECONDS, what=_("the kernel to answer"))
    except TimedOut:
        raise AilabError(_("The lab's kernel did not start."), remedy=_its_log(user)) from None
    except InvalidStatus as error:
        raise _gone(user, f"HTTP {error.response.status_code}") from None
    try:
        with socket:
            _wait_until_it_listens(socket)
            return _execute(socket, code)
    except ConnectionClosed as error:
        raise _gone(user, str(error)) from None


def _its_log(user: str) -> str:
    return _("Its log: .ailab/tasks/workspace-{user}/log").format(user=user)


def _gone(user: str, reason: str) -> AilabError:
    return AilabError(
        _("The kernel is out of reach ({reason}): its workspace has ended or was restarted.").format(reason=reason),
        remedy=_its_log(user),
    )


def _send(socket: ClientConnection, kind: str, content: dict[str, Any]) -> str:
    """Send a request on the shell channel; its id, which the answers carry."""
    request = uuid.uuid4().hex
    header = {"msg_id": request, "msg_type": kind, "username": "", "session": request, "version": "5.3"}
    message = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
    socket.send(json.dumps(message))
    return request


def _wait_until_it_listens(socket: ClientConnection) -> None:
    """Ask the kernel what it is until it answers: what comes between the WebSocket's opening and the server's own
    connection to the kernel, the server drops without a word."""

    def answers() -> bool:
        request = _send(socket, "kernel_info_request", {})
        asked = time.monotonic()
        with contextlib.suppress(TimeoutError):
            while time.monotonic() < asked + _ANSWER_SECONDS:
                answer = json.loads(socket.recv(timeout=_ANSWER_SECONDS))
                if answer["msg_type"] == "kernel_info_reply" and answer["parent_header"].get("msg_id") == request:
                    return True
        return False

    wait_for(answers, timeout=START_SECONDS, what=_("the kernel to answer"))


def _execute(socket: ClientConnection, code: str) -> str:
    asked = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": True}
    request = _send(socket, "execute_request", asked)
    printed: list[str] = []
    failure = ""
    while True:
        try:
            answer = json.loads(socket.recv(timeout=CELL_SECONDS))
        except TimeoutError:
            raise timed_out(_("the cell in the lab's kernel"), CELL_SECONDS) from None
        if answer["parent_header"].get("msg_id") != request:
            continue
        kind, content = answer["msg_type"], answer["content"]
        if kind == "stream" and content["name"] == "stdout":
            printed.append(content["text"])
        elif kind == "error":
            failure = "\n".join(content["traceback"])
        elif kind == "status" and content["execution_state"] == "idle":
            break
    if failure:
        raise AilabError(_("The cell failed in the lab's kernel."), remedy="ailab verify", detail=failure)
    return "".join(printed)
