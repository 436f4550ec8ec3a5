"""What ailab itself asks of the hub: routes for a new proxy, a person's server."""

from __future__ import annotations

import http.client
import json
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

from ailab.access.secret_files import secret
from ailab.access.services import PORTAL_PREFIX, socket_url
from ailab.client import UnixConnection
from ailab.errors import AilabError, NotRunning
from ailab.i18n import _
from ailab.paths import LabPaths
from ailab.waiting import wait_for

SERVER_SECONDS = 120.0


def hub_call(lab: LabPaths, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """One request to the hub's API over its socket, as the lab's own service: status and decoded answer."""
    headers = token_headers(secret(lab, "service-token"))
    return exchange(UnixConnection(lab.hub_socket, timeout=30), headers, method, f"/hub/api{path}", body)


def token_headers(token: str) -> dict[str, str]:
    return {"Authorization": f"token {token}", "Content-Type": "application/json"}


def exchange(
    connection: http.client.HTTPConnection, headers: dict[str, str], method: str, path: str, body: Any
) -> tuple[int, Any]:
    """One request on a connection of its own, which is closed: status and decoded answer. Raises `NotRunning`."""
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        data = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise NotRunning(
            _("The lab does not answer at {path}: {reason}.").format(path=path, reason=error or type(error).__name__),
            remedy=_("See what runs: ailab status"),
        ) from error
    finally:
        connection.close()
    try:
        return answer.status, json.loads(data) if data else None
    except ValueError:
        return answer.status, None


def add_portal_route(lab: LabPaths) -> bool:
    """Tell the proxy where the portal is. JupyterHub would take no unix socket for a service, its proxy does, and the
    hub leaves alone what it has not put there. False while the proxy does not answer."""
    try:
        route = {"target": socket_url(lab.portal_socket)}
        status, _answer = _proxy_call(lab, "POST", PORTAL_PREFIX.rstrip("/"), route)
        return status == http.client.CREATED
    except NotRunning:
        return False


def drop_tcp_routes(lab: LabPaths) -> None:
    """Have the proxy lead nowhere but to sockets. One that does not run knows no routes."""
    with suppress(NotRunning):
        status, routes = _proxy_call(lab, "GET", "")
        for path, route in routes.items() if status == http.client.OK else ():
            if urlsplit(route["target"]).scheme != "http+unix":
                _proxy_call(lab, "DELETE", quote(path.rstrip("/")))


def _proxy_call(lab: LabPaths, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = UnixConnection(lab.run / "proxy-api.sock", timeout=5)
    return exchange(connection, token_headers(secret(lab, "proxy-token")), method, f"/api/routes{path}", body)


def restore_routes(lab: LabPaths) -> bool:
    """Have the hub tell the proxy its routes again, at once. False while one of them does not answer, or while the
    proxy lacks one all the same: asked in the middle of a look at the routes, the hub answers with the end of that."""
    try:
        status, _answer = hub_call(lab, "POST", "/proxy")
        ready, users = hub_call(lab, "GET", "/users?state=ready")
        return status == ready == http.client.OK and {user["name"] for user in users} <= _routed(lab)
    except NotRunning:
        return False


def _routed(lab: LabPaths) -> set[str]:
    """The users to whose servers the proxy has a route."""
    status, routes = hub_call(lab, "GET", "/proxy")
    return {route["data"].get("user", "") for route in routes.values()} if status == http.client.OK else set()


def start_server(lab: LabPaths, user: str) -> None:
    """Make sure that `user`'s workspace runs; returns when the hub has seen it answer, and the public door leads
    there."""
    status, answer = hub_call(lab, "GET", f"/users/{user}")
    if status == http.client.NOT_FOUND:
        status, answer = hub_call(lab, "POST", f"/users/{user}")
    # CONFLICT: somebody else, or their own login, has told the hub of the user meanwhile.
    if status >= http.client.BAD_REQUEST and status != http.client.CONFLICT:
        raise _refused(answer)
    what = _("the workspace of {user}").format(user=user)
    if not _server_is_ready(lab, user):
        status, answer = hub_call(lab, "POST", f"/users/{user}/server")
        if status >= http.client.BAD_REQUEST and "pending" not in str(answer) and "already running" not in str(answer):
            raise _refused(answer)
        wait_for(lambda: _server_is_ready(lab, user), timeout=SERVER_SECONDS, what=what, first=0.05)
    wait_for(lambda: _is_routed(lab, user), timeout=SERVER_SECONDS, what=what, first=0.05)


def _is_routed(lab: LabPaths, user: str) -> bool:
    """A hub that has just started finds its users' servers one by one, and tells the proxy at the end."""
    if user in _routed(lab):
        return True
    restore_routes(lab)
    return False


def _refused(answer: Any) -> AilabError:
    message = answer.get("message", "") if isinstance(answer, dict) else str(answer)
    return AilabError(_("The hub refused: {reason}").format(reason=message), remedy=_("Its log: .ailab/tasks/hub/log"))


def _server_is_ready(lab: LabPaths, user: str) -> bool:
    _status, answer = hub_call(lab, "GET", f"/users/{user}")
    servers = answer.get("servers") or {}
    return bool(servers.get("", {}).get("ready"))
