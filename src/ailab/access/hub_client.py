"""What ailab itself asks of the hub: routes for a new proxy, a person's server."""

from __future__ import annotations

import http.client
import json
from typing import Any

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
    return _call(UnixConnection(lab.hub_socket, timeout=30), lab, method, f"/hub/api{path}", body)


def web_call(lab: LabPaths, web: tuple[str, int], method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """One request through the public door, as the lab's own service: status and decoded answer."""
    return _call(http.client.HTTPConnection(*web, timeout=60), lab, method, path, body)


def server_call(lab: LabPaths, address: str, method: str, path: str) -> tuple[int, Any]:
    """One request to a person's server itself, at `address` (host:port), as the lab's own service."""
    return _call(http.client.HTTPConnection(address, timeout=10), lab, method, path, None)


def headers(lab: LabPaths) -> dict[str, str]:
    """What a request of the lab's own service carries."""
    return {"Authorization": f"token {secret(lab, 'service-token')}", "Content-Type": "application/json"}


def _call(connection: http.client.HTTPConnection, lab: LabPaths, method: str, path: str, body: Any) -> tuple[int, Any]:
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers(lab))
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
    connection = UnixConnection(lab.run / "proxy-api.sock", timeout=5)
    headers = {"Authorization": f"token {secret(lab, 'proxy-token')}", "Content-Type": "application/json"}
    try:
        body = json.dumps({"target": socket_url(lab.portal_socket)})
        connection.request("POST", f"/api/routes{PORTAL_PREFIX.rstrip('/')}", body, headers)
        return connection.getresponse().status == http.client.CREATED
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


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
