"""The HTTP client of the daemon's API, over its unix socket: the same verbs, the same errors; and the jobs of a lab.

    from ailab.client import jobs
    job = jobs("/srv/ailab").run("python train.py --epochs 100", cwd="/srv/ailab/notebooks", gpus=1)

Plain http.client, because `status` has half a second and importing a larger client takes a good part of it.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ailab.errors import (
    AilabError,
    Conflict,
    DiskFull,
    Forbidden,
    NotFound,
    NotRunning,
    ReadOnlyDisk,
    UsageError,
    WrongPassword,
)
from ailab.i18n import _, current_language
from ailab.paths import LabPaths, person
from ailab.waiting import TimedOut

if TYPE_CHECKING:
    from ailab.progress_client.ailab_jobs import Jobs

_ERRORS: dict[str, type[AilabError]] = {
    error.kind: error
    for error in (
        *(AilabError, Conflict, DiskFull, Forbidden, NotFound, NotRunning, ReadOnlyDisk, TimedOut, UsageError),
        WrongPassword,
    )
}


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, *, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """Calls the daemon of one lab. Raises `NotRunning` when it does not answer, else the error that it answered."""

    def __init__(self, socket_path: Path, *, timeout: float = 30.0) -> None:
        self._socket = socket_path
        self._timeout = timeout

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self.call("POST", path, body)

    def delete(self, path: str) -> Any:
        return self.call("DELETE", path)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The decoded JSON answer of one request."""
        connection = UnixConnection(self._socket, timeout=self._timeout)
        try:
            headers = {"Accept-Language": current_language()}
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            data = answer.read()
        except TimeoutError:
            raise TimedOut(
                _("The lab's daemon did not answer within {seconds:g} s.").format(seconds=self._timeout),
                remedy=_("Look into its log: .ailab/daemon.log"),
            ) from None
        except (OSError, http.client.HTTPException):
            raise NotRunning(_("The lab's daemon does not answer."), remedy=_("Start it: ailab up")) from None
        finally:
            connection.close()
        if answer.status >= 400:
            error = error_from(data)
            error.http_status = answer.status
            raise error
        return json.loads(data) if data else None


def error_from(data: bytes) -> AilabError:
    """The error that an API answered with, as the class that it was raised as there."""
    try:
        body = json.loads(data)["error"]
        kind, message = body["kind"], body["message"]
    except (ValueError, KeyError, TypeError):
        return AilabError(_("The lab's daemon failed."), detail=data.decode(errors="replace")[:2000])
    error = _ERRORS.get(kind, AilabError)(message, remedy=body.get("remedy", ""), detail=body.get("detail", ""))
    error.kind = kind
    return error


def jobs(lab: Path | str, *, user: str = "") -> Jobs:
    """The jobs of the lab in a folder, asked for as `user` (else as who runs this): `ailab_jobs` has what can be done
    with them. For who may open the daemon's socket: the lab's account. Errors are `AilabError`, as those of `ailab`."""
    from ailab.progress_client.ailab_jobs import Jobs

    client = Client(LabPaths(Path(lab).absolute()).daemon_socket, timeout=60.0)
    return Jobs(_Door(client, user or os.environ.get("JUPYTERHUB_USER") or person()))


class _Door:
    """What `Jobs` asks at, over the client: with whose asking it is."""

    def __init__(self, client: Client, user: str) -> None:
        self._client = client
        self._told = {"owner": user, "actor": user}

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        from ailab.progress_client.ailab_jobs import as_asked

        try:
            return self._client.call(method, f"/api{path}", None if body is None else self._told | body)
        except UsageError as refused:
            raise UsageError(as_asked(refused.message), remedy=refused.remedy) from None

    def place(self, path: Path) -> str:
        return str(path)
