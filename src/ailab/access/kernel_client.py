"""A cell in a kernel of a person's workspace, run through the public door (Jupyter messaging, version 5)."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import uuid
from typing import TYPE_CHECKING, Any

from ailab.access.hub_client import headers, web_call
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.paths import LabPaths
from ailab.waiting import TimedOut, timed_out, wait_for

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

START_SECONDS = 120.0
CELL_SECONDS = 300.0
_ANSWER_SECONDS = 1.0
# Behind a proxy that has just started anew and does not lead to the workspace yet, an attempt to open would take until
# its own timeout.
_OPEN_SECONDS = 5.0


def run_cell(lab: LabPaths, web: tuple[str, int], user: str, code: str) -> str:
    """Run `code` in a fresh kernel of `user`'s workspace; what it printed.

    Raises `AilabError` with the traceback when the cell fails. The kernel is removed afterwards, which takes a second
    that nobody needs to wait for.
    """
    status, kernel = web_call(lab, web, "POST", f"/user/{user}/api/kernels", {"name": "python3"})
    if status != http.client.CREATED:
        raise AilabError(
            _("The workspace did not start a kernel (HTTP {status}).").format(status=status),
            remedy=_its_log(user),
        )
    try:
        return execute(lab, web, user, kernel["id"], code)
    finally:
        with contextlib.suppress(OSError):
            door = http.client.HTTPConnection(*web, timeout=10)
            door.request("DELETE", f"/user/{user}/api/kernels/{kernel['id']}", headers=headers(lab))
            door.close()


def execute(lab: LabPaths, web: tuple[str, int], user: str, kernel: str, code: str) -> str:
    """Run `code` in a kernel that is there; what it printed.

    Raises `AilabError`: with the traceback when the cell fails, and when the kernel or its workspace has gone.
    """
    from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
    from websockets.sync.client import connect

    host = f"[{web[0]}]" if ":" in web[0] else web[0]
    address = f"ws://{host}:{web[1]}/user/{user}/api/kernels/{kernel}/channels"
    head = headers(lab)

    def opened() -> ClientConnection | None:
        try:
            return connect(address, additional_headers=head, max_size=None, proxy=None, open_timeout=_OPEN_SECONDS)
        except (OSError, InvalidMessage):
            # The proxy is on its way back, or the workspace behind it: the proxy then answers "HTTP/1.1 503" without
            # the space that the status line must have (configurable-http-proxy, handleProxyError).
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
        _("The kernel is out of reach ({reason}): its workspace or the proxy has ended or was started anew.").format(
            reason=reason
        ),
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
