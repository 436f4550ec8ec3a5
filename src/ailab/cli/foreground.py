"""`ailab up --foreground`: stay while the lab runs, keep its daemon alive, and stop the lab when told to end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ailab.cli.output import note, step
from ailab.i18n import _

if TYPE_CHECKING:
    from ailab.lab import Lab

LOOK_SECONDS = 1.0


@contextmanager
def ends_with_us(lab: Lab) -> Iterator[None]:
    """Within, the lab is up; however that ends, it is stopped. To be told to end (SIGTERM, Ctrl-C) is no failure."""
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        from ailab import shutdown

        note("")
        with step(_("Stopping the lab")):
            shutdown.stop_lab(lab)


def stay(lab: Lab, mark: int) -> None:
    """Return when the lab has been brought down by somebody else: the mark is not `mark` any more. A daemon that has
    died is started again: what runs goes on meanwhile."""
    from ailab import bringup, shutdown

    never = threading.Event()
    while not never.wait(LOOK_SECONDS):
        if shutdown.daemon_pid(lab) is None:
            if not shutdown.running_tasks(lab) or shutdown.stop_mark(lab.paths) != mark:
                return
            with contextlib.suppress(shutdown.Stopped):
                bringup.ensure_daemon(lab, mark)
