"""The daemon's process: one per lab, on unix sockets that only the lab's account can open."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ailab import __version__, files, place
from ailab.daemon.log_file import LogFile, keep_log
from ailab.daemon.loops import loops_of
from ailab.daemon.parts import Parts
from ailab.daemon.workspace_renewal import leave_tcp, renew_stopped
from ailab.lab import Lab
from ailab.paths import private_folder
from ailab.place import Place
from ailab.shutdown import stop_mark
from ailab.waiting import TimedOut, wait_for

if TYPE_CHECKING:
    import uvicorn

TICK_SECONDS = 1.0
LOOK_SECONDS = 1.0
WATCH_SECONDS = 2.0
# Who asks waits for a thread that works, as the one that plans, at each of some steps: at most so long, not 5 ms.
SWITCH_SECONDS = 0.001

logger = logging.getLogger("ailab.daemon")


def main() -> None:
    """Serve one lab until told to leave. Exit status 3: another daemon serves it already, or it was brought down since
    `--mark` was noted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lab", type=Path, required=True)
    parser.add_argument("--mark", type=int)
    # Nearly all that it makes while it starts, it keeps.
    gc.disable()
    os.umask(0o077)
    arguments = parser.parse_args()
    lab = Lab.open(arguments.lab)
    lab.make_private_folders()
    private_folder(lab.paths.run)
    private_folder(lab.paths.hub_socket.parent)
    private_folder(lab.paths.mlflow_socket.parent)
    if not hold(lab.paths.run / "daemon.lock"):
        sys.exit(3)
    # After the lock: `down` changes the mark first, and looks who holds the lock then.
    if arguments.mark not in (None, stop_mark(lab.paths)):
        sys.exit(3)
    log = keep_log(lab.paths.daemon_log)
    logger.info("daemon of ailab %s starts with pid %d for the lab %s", __version__, os.getpid(), lab.paths.root)
    serve(lab, log, place.note(lab.paths))
    logger.info("daemon with pid %d has ended", os.getpid())
    log.close()


def hold(path: Path) -> bool:
    """Lock the file at `path` until this process has ended, with its pid inside; False when another holds it.

    A bare descriptor, which nothing closes: a lock that went with an object would be free before the process is gone.
    """
    descriptor = files.open_lock(path)
    try:
        # Whoever looks whether a daemon lives holds it for a moment.
        wait_for(lambda: files.try_lock(descriptor), timeout=LOOK_SECONDS, what="the daemon's lock", first=0.001)
    except TimedOut:
        os.close(descriptor)
        return False
    os.truncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return True


def serve(lab: Lab, log: LogFile, here: Place) -> None:
    """Start the tasks first, then the (slower to import) web applications beside them."""
    import uvloop

    sys.setswitchinterval(SWITCH_SECONDS)
    parts = Parts.of(lab)
    renew_stopped(parts)
    want_services(parts)
    leave_tcp(parts)
    parts.mlflow.begin()
    parts.loops.start(loops_of(parts))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: parts.leave())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_applications(parts, log, here))
    parts.loops.join(5)
    parts.supervisor.close()
    parts.worker.close()


def want_services(parts: Parts) -> None:
    """The lab's own services, from its settings; one whose specification has changed is started anew."""
    from ailab.access import secret_files, tools
    from ailab.access.services import service_specs

    lab = parts.lab
    secrets = {name: secret_files.renewed(lab.paths, name) for name in secret_files.NAMES}
    for spec in service_specs(lab.settings, lab.paths, tools.find(lab.machine), secrets):
        parts.supervisor.want(spec, owner="", actor="daemon")


async def _serve_applications(parts: Parts, log: LogFile, here: Place) -> None:
    import uvicorn

    from ailab.daemon.app import local_api
    from ailab.daemon.backstage import portal_application

    servers, leaving = [], asyncio.Event()
    for application, path in (
        (portal_application(parts), parts.lab.paths.portal_socket),
        (local_api(parts), parts.lab.paths.daemon_socket),
    ):
        config = uvicorn.Config(
            application, log_config=None, log_level="warning", access_log=False, lifespan="off", ws="none"
        )
        server = _quiet_server(config, leaving)
        server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]  # two servers, one process: ours are set
        servers.append((server, listen(path)))
    serving = [asyncio.create_task(server.serve(sockets=[sock])) for server, sock in servers]
    watching = asyncio.create_task(_watch(parts, log, here))
    gc.enable()
    await asyncio.to_thread(parts.leaving.wait)
    watching.cancel()
    await asyncio.sleep(0.1)  # the answer to the request that told us to leave
    for server, _sock in servers:
        server.should_exit = True
    leaving.set()
    await asyncio.gather(*serving)


async def _watch(parts: Parts, log: LogFile, here: Place) -> None:
    """The watchdog of the loops. It is in the main thread: without that there is no daemon.

    A lab whose folder is elsewhere at two looks was moved: the daemon leaves, for its paths lead nowhere, or into
    another lab. What runs is left to the next `ailab` at the new place.
    """
    missed = 0
    while True:
        parts.loops.look()
        missed = 0 if here.is_there() else missed + 1
        if missed > 1:
            logger.error("the lab is not at %s any more: the daemon leaves", here.root)
            parts.leave()
        log.tend()
        await asyncio.sleep(WATCH_SECONDS)


def _quiet_server(config: uvicorn.Config, leaving: asyncio.Event) -> uvicorn.Server:
    """uvicorn's server, which looks around once a second instead of ten times: an idle lab is to be idle."""
    import uvicorn

    class QuietServer(uvicorn.Server):
        async def main_loop(self) -> None:
            while not await self.on_tick(0):
                with suppress(TimeoutError):
                    await asyncio.wait_for(leaving.wait(), TICK_SECONDS)

    return QuietServer(config)


def listen(path: Path) -> socket.socket:
    """A listening unix socket at `path` (a stale one is replaced), open to nobody but us."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    path.chmod(0o600)
    sock.listen(128)
    return sock


if __name__ == "__main__":
    main()
