"""The door to a container engine (Docker Engine 20.10+, or Podman's API), and its failures in our words."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ailab.errors import AilabError
from ailab.i18n import _

if TYPE_CHECKING:
    import docker

# Docker Engine 20.10 speaks 1.41: the first with cgroup v2, device requests and one-shot statistics.
OLDEST_API = "1.41"
# Docker Engine 29 answers nothing older than 1.44.
_TOO_OLD = re.compile(r"Minimum supported API version is (\d+\.\d+)")
_USUAL_SOCKET = "/var/run/docker.sock"
_ANSWER_SECONDS = 60.0


class EngineError(AilabError):
    """No engine, no permission on its socket, one that is too old, or one that refuses."""

    kind = "engine"


def address() -> str:
    """Where the engine listens: what DOCKER_HOST says, as every tool of this field takes it; else the usual socket."""
    return os.environ.get("DOCKER_HOST") or f"unix://{_USUAL_SOCKET}"


def socket_path() -> Path | None:
    """The engine's socket on this machine; None where it is reached over a network."""
    where = address()
    return Path(where.removeprefix("unix://")) if where.startswith("unix://") else None


def connect(patience: float = _ANSWER_SECONDS) -> docker.DockerClient:
    """An engine that answers, within `patience` seconds then and later. Raises `EngineError` that says which of the
    usual reasons it is, and the command."""
    from docker.errors import APIError, DockerException

    _refuse_closed_socket()
    try:
        client = _client(OLDEST_API, patience)
    except APIError as error:
        if "too old" in str(error) or "too new" in str(error) or "version" in str(error):
            raise EngineError(
                _("The container engine at {address} does not speak version {version} of Docker's API.").format(
                    address=address(), version=OLDEST_API
                ),
                remedy=_("Install Docker Engine 20.10 or newer, or Podman 4 or newer."),
                detail=str(error),
            ) from None
        raise explained(error) from error
    except (DockerException, OSError) as error:  # requests' own errors are OSErrors
        raise _no_answer(str(error)) from error
    return client


def _client(version: str, patience: float) -> docker.DockerClient:
    """A client that has had an answer in this version of the API, else in the oldest that the engine still speaks."""
    import docker
    from docker.errors import APIError

    client = docker.DockerClient(base_url=address(), version=version, timeout=int(patience))
    try:
        client.ping()
    except APIError as error:
        client.close()
        oldest = _TOO_OLD.search(str(error))
        if oldest is None or oldest[1] == version:
            raise
        return _client(oldest[1], patience)
    return client


def is_podman(client: docker.DockerClient) -> bool:
    """Whether the engine is Podman, which speaks Docker's API: all of it but BuildKit's part."""
    with told():
        components = client.version().get("Components") or []
    return any(str(one.get("Name", "")).startswith("Podman") for one in components)


def _refuse_closed_socket() -> None:
    path = socket_path()
    if path is None:
        return
    try:
        seen = path.stat()
    except OSError:
        raise _no_answer("") from None
    if stat.S_ISSOCK(seen.st_mode) and not os.access(path, os.R_OK | os.W_OK):
        from ailab.paths import account_name

        remedy = _(
            "Who may use it is as good as root here. If that is meant: sudo usermod -aG docker {account}, "
            "and log in anew."
        )
        if seen.st_gid == 0:  # as Podman's service makes it
            remedy = _(
                "It is root's alone. Who may use it is as good as root here. If that is meant, give it a group of "
                "which {account} is a member: SocketGroup= in podman.socket (sudo systemctl edit podman.socket)."
            )
        raise EngineError(
            _("The account {account} may not use the container engine ({socket}).").format(
                account=account_name(), socket=path
            ),
            remedy=remedy.format(account=account_name()),
        )


def _no_answer(reason: str) -> EngineError:
    remedy = _("Install and start one (Debian, Ubuntu: sudo apt-get install docker.io), or set DOCKER_HOST.")
    if shutil.which("podman") is not None and shutil.which("dockerd") is None:
        remedy = _(
            "Podman is here, and its service serves: systemctl --user enable --now podman.socket, and "
            "export DOCKER_HOST=unix://$XDG_RUNTIME_DIR/podman/podman.sock"
        )
    return EngineError(
        _("There is no container engine at {address}.").format(address=address()),
        remedy=remedy,
        detail=reason,
    )


def explained(error: Exception) -> EngineError:
    """What the engine refused, as a sentence: its own words, and the remedy where the cause is known."""
    said = str(getattr(error, "explanation", None) or error) or type(error).__name__
    return refusal("no space left on device" if getattr(error, "errno", None) == errno.ENOSPC else said)


def refusal(said: str) -> EngineError:
    """`explained`, for what an engine says in the midst of an answer that began well."""
    if "no space left on device" in said.lower():
        return EngineError(
            _("The disk of the container engine is full."),
            remedy=_("See what takes room: docker system df; free some: docker image prune, docker builder prune"),
            detail=said,
        )
    return EngineError(
        _("The container engine refused: {reason}").format(reason=said.splitlines()[0]),
        remedy=_("See how it is: docker info"),
        detail=said,
    )


def silence(patience: float) -> str | None:
    """Why no engine answers within `patience` seconds; None when one does."""
    try:
        connect(patience).close()
    except EngineError as silent:
        return silent.message
    return None


def began(client: docker.DockerClient) -> str | None:
    """When the engine was started, as it writes times; None where that cannot be seen, or containers have outlived it.

    Docker Engine has no word for it, but makes its network `bridge` anew at each start unless containers go on
    (live-restore); Podman's default network has another name, and is kept.
    """
    from docker.errors import NotFound

    try:
        with told():
            return str(client.api.inspect_network("bridge")["Created"])
    except (NotFound, EngineError):
        return None


@contextmanager
def told() -> Iterator[None]:
    """What Docker's SDK raises within becomes an `EngineError`; a missing thing is for the caller to catch first."""
    from docker.errors import DockerException
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except DockerException as error:
        raise explained(error) from error
    except (RequestException, HTTPError, ConnectionError, TimeoutError) as error:
        raise _no_answer(str(error)) from error
