"""What cells put out while no browser looks: kept by the Jupyter server until the notebook's page is there again.

JupyterLab puts outputs into the notebook itself, so those that come while its page is closed are lost
(https://github.com/jupyterlab/jupyterlab/issues/2833). Here the server listens to each kernel beside the page, and
keeps what an execution puts out that was asked for by a page that has gone; our extension `ailab-kept-outputs` fetches
it. No document is held by the server, as real-time collaboration would need.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import nbformat.v4
from jupyter_client.session import Session
from jupyter_server.base.handlers import APIHandler
from jupyter_server.services.kernels.connection import base
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from tornado import web

# Of one kernel: how many executions, and how many bytes of outputs of one are kept.
MOST_EXECUTIONS = 200
MOST_BYTES = 10_000_000
_OUTPUTS = ("stream", "display_data", "execute_result", "error")
_OVER = ("starting", "restarting", "dead")
# Both have type hints in part alone.
_FORMAT: Any = nbformat.v4
_WIRE: Any = base
_V1 = "v1.kernel.websocket.jupyter.org"


@dataclass
class Execution:
    """A cell that was asked to run. `is_missed`: something has come while the page that asked was away."""

    cell: str
    code: str
    page: str
    count: int | None = None
    outputs: list[dict[str, Any]] = field(default_factory=list)
    is_done: bool = False
    is_missed: bool = False
    size: int = 0
    clears: bool = False
    # By the id under which a display may be changed later: which output it is.
    displays: dict[str, int] = field(default_factory=dict)

    def take(self, message: dict[str, Any]) -> None:
        """Change what is kept as a page would that shows it."""
        kind, content = message["msg_type"], message["content"]
        if kind == "execute_input":
            self.count = content.get("execution_count")
        elif kind == "clear_output":
            self.clears = bool(content.get("wait"))
            if not self.clears:
                self._clear()
        elif kind == "update_display_data":
            index = self.displays.get(content.get("transient", {}).get("display_id", ""))
            if index is not None:
                self.outputs[index] |= {"data": content["data"], "metadata": content["metadata"]}
        elif kind in _OUTPUTS:
            self._add(kind, content, message)

    def _add(self, kind: str, content: dict[str, Any], message: dict[str, Any]) -> None:
        if self.clears:
            self.clears = False
            self._clear()
        self.size += len(json.dumps(content))
        if self.size > MOST_BYTES:
            return
        last = self.outputs[-1] if self.outputs else {}
        if kind == "stream" and last.get("output_type") == "stream" and last["name"] == content["name"]:
            last["text"] += content["text"]
            return
        if display := content.get("transient", {}).get("display_id"):
            self.displays[display] = len(self.outputs)
        self.outputs.append(dict(_FORMAT.output_from_msg(message)))

    def _clear(self) -> None:
        self.outputs, self.displays, self.size = [], {}, 0

    def to_json(self) -> dict[str, Any]:
        return {
            "cell": self.cell,
            "code": self.code,
            "page": self.page,
            "count": self.count,
            "outputs": self.outputs,
            "done": self.is_done,
        }


class Listener:
    """Hears all that a kernel puts out, on a channel of its own."""

    def __init__(self, kernel: Any) -> None:
        self.executions: OrderedDict[str, Execution] = OrderedDict()
        self._kernel = kernel
        self._session = Session(config=kernel.session.config, key=kernel.session.key)
        self._stream = kernel.connect_iopub()
        self._stream.on_recv(self._hear)

    def ask(self, request: str, execution: Execution) -> None:
        self.executions[request] = execution
        while len(self.executions) > MOST_EXECUTIONS:
            self.executions.popitem(last=False)

    def missed(self) -> dict[str, Execution]:
        return {request: one for request, one in self.executions.items() if one.is_missed}

    def close(self) -> None:
        if not self._stream.closed():
            self._stream.close()

    def _hear(self, parts: list[bytes]) -> None:
        _identities, rest = self._session.feed_identities(parts)
        message = self._session.deserialize(rest)
        state = message["content"].get("execution_state") if message["msg_type"] == "status" else None
        if state in _OVER:
            # What ran in the kernel's process before has ended with it.
            for one in self.executions.values():
                one.is_done = True
        request = message["parent_header"].get("msg_id", "")
        execution = self.executions.get(request)
        if execution is None:
            return
        page = f"{self._kernel.kernel_id}:{execution.page}"
        execution.is_missed |= page not in ZMQChannelsWebsocketConnection._open_sessions
        execution.take(message)
        if state == "idle":
            execution.is_done = True
            if not execution.is_missed:
                del self.executions[request]


LISTENERS: dict[str, Listener] = {}


class Connection(ZMQChannelsWebsocketConnection):
    """A page's connection to a kernel, of which what it asks to run is noted."""

    def connect(self) -> Any:
        connected = super().connect()
        known = LISTENERS.get(self.kernel_id)
        if connected is not None and (known is None or known._kernel is not self.kernel_manager):
            if known is not None:
                known.close()
            LISTENERS[self.kernel_id] = Listener(self.kernel_manager)
        return connected

    def handle_incoming_message(self, incoming_msg: Any) -> None:
        if self.channels and (listener := LISTENERS.get(self.kernel_id)) is not None:
            asked = _asked(incoming_msg, self.subprotocol)
            if asked is not None:
                listener.ask(*asked)
        super().handle_incoming_message(incoming_msg)


def _asked(message: Any, protocol: str | None) -> tuple[str, Execution] | None:
    """A cell that a page asks to run, and the request's id; None for any other message."""
    try:
        if protocol == _V1:
            channel, parts = _WIRE.deserialize_msg_from_ws_v1(message)
            if b"execute_request" not in bytes(parts[0]):
                return None
            header, metadata, content = (json.loads(parts[index]) for index in (0, 2, 3))
        else:
            document = json.loads(message)
            channel = document.get("channel", "shell")
            header, metadata, content = (document[name] for name in ("header", "metadata", "content"))
        if (
            channel != "shell"
            or header["msg_type"] != "execute_request"
            or content.get("silent")
            or not metadata.get("cellId")
        ):
            return None
        execution = Execution(str(metadata["cellId"]), str(content["code"]), str(header["session"]))
        return str(header["msg_id"]), execution
    except (ValueError, KeyError, TypeError, IndexError):
        return None


class KeptHandler(APIHandler):
    """`GET`: what a kernel's executions have put out that a page has missed. `DELETE`: one that a page has now."""

    @web.authenticated
    async def get(self, kernel: str) -> None:
        listener = LISTENERS.get(kernel)
        found = listener.missed() if listener is not None else {}
        self.finish(json.dumps({request: execution.to_json() for request, execution in found.items()}))

    @web.authenticated
    async def delete(self, kernel: str) -> None:
        listener = LISTENERS.get(kernel)
        if listener is not None:
            listener.executions.pop(self.get_query_argument("request"), None)
        self.set_status(204)
        self.finish()


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(app: Any) -> None:
    """Called by the Jupyter server, whose settings name this module."""
    forget = app.kernel_manager.remove_kernel

    def remove(kernel_id: str) -> Any:
        if (listener := LISTENERS.pop(kernel_id, None)) is not None:
            listener.close()
        return forget(kernel_id)

    app.kernel_manager.remove_kernel = remove
    address = f"{app.web_app.settings['base_url']}ailab/kept/([\\w-]+)"
    app.web_app.add_handlers(".*$", [(address, KeptHandler)])
