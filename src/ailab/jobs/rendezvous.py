"""Where the workers of a Horovod gang meet: it stands beside the first of them, and ends with it.

`python -m ailab.jobs.rendezvous HOST:PORT COMMAND...` runs the command and ends as it does. Meanwhile it keeps for the
workers what they put under a name, which is all that Horovod's Gloo asks of the server that `horovodrun` starts
(horovod/runner/http/http_server.py of Horovod 0.28): PUT and GET of /SCOPE/KEY, 404 for what is not there yet.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Addresses of workers, some dozen bytes each.
_LARGEST = 1_000_000
_MOST = 1_000_000


def program(command: Sequence[str], *, python: str, place: str) -> tuple[str, ...]:
    """The command with this beside it, which listens at `place`, a host:port. `python` is one that has ailab."""
    return (python, "-I", "-m", "ailab.jobs.rendezvous", place, *command)


class _Handler(BaseHTTPRequestHandler):
    timeout = 10.0

    def do_PUT(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        if size > _LARGEST or len(self._kept) >= _MOST:
            self._answer(413)
            return
        self._kept[self.path] = self.rfile.read(size)
        self._answer(200)

    def do_GET(self) -> None:
        found = self._kept.get(self.path)
        self._answer(404 if found is None else 200, found or b"")

    def do_DELETE(self) -> None:
        """A worker has all that it needs; others may still be looking."""
        self._answer(200)

    @property
    def _kept(self) -> dict[str, bytes]:
        return self.server.kept  # type: ignore[attr-defined,no-any-return]  # _Store, below

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *words: object) -> None:
        """Nothing: the output is the command's."""


class _Store(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        super().__init__((host, port), _Handler)
        self.kept: dict[str, bytes] = {}


def main(words: Sequence[str]) -> None:
    place, *command = words
    host, _colon, port = place.rpartition(":")
    threading.Thread(target=_Store(host, int(port)).serve_forever, daemon=True).start()
    # The command is told to end as this is, by its group, and what it does then is for it to say.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        pid = os.posix_spawnp(command[0], command, os.environ, setsigdef=[signal.SIGTERM])
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(126 if isinstance(error, PermissionError) else 127)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.stdout.flush()
    if status < 0:
        with contextlib.suppress(OSError):  # nobody can handle KILL
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    # At once: threads that still answer somebody are not waited for.
    os._exit(status & 255)


if __name__ == "__main__":
    main(sys.argv[1:])
