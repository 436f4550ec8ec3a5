"""In a Jupyter server: forgets what the hub has said of logins, so that those it has ended meanwhile are over here.

The server believes the hub's word on a token for five minutes (HubAuth.cache_max_age), and asks about a WebSocket only
when it opens. Told that logins have ended, it asks again about all of them. Pages whose login is valid do not notice:
JupyterLab opens its WebSockets again by itself.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from jupyter_server.base.handlers import APIHandler
from tornado import web
from tornado.websocket import WebSocketHandler

_open: WeakSet[WebSocketHandler] = WeakSet()


class LoginsHandler(APIHandler):
    """Called by the daemon."""

    @web.authenticated
    def delete(self) -> None:
        provider: Any = self.identity_provider
        provider.hub_auth.cache.clear()
        for page in list(_open):
            page.close(1012, "logins have changed")
        self.set_status(204)


def _note_websockets() -> None:
    """Have each WebSocket noted when it opens, whatever part of the server it belongs to."""
    chosen = WebSocketHandler.get_websocket_protocol

    def noted(handler: WebSocketHandler) -> Any:
        _open.add(handler)
        return chosen(handler)

    WebSocketHandler.get_websocket_protocol = noted  # type: ignore[method-assign,assignment]  # the class itself, for all parts


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(app: Any) -> None:
    """Called by the Jupyter server, whose settings name this module."""
    _note_websockets()
    app.web_app.add_handlers(".*$", [(f"{app.web_app.settings['base_url']}ailab/logins", LoginsHandler)])
