"""`ailab up --foreground`: stay while the lab runs, keep its daemon alive, and stop the lab when told to end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from ailab.cli.output import note, step
from ailab.i18n import _

if TYPE_CHECKING:
    from ailab.lab import Lab

LOOK_SECONDS = 1.0


@contextmanager
def told_to_end() -> Iterator[None]:
    """Within, a SIGTERM is what Ctrl-C is."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def ends_with_us(lab: Lab) -> Iterator[None]:
    """Within, the lab is up; however that ends, it is stopped. To be told to end is no failure."""
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        from ailab import bringup

        note("")
        with step(_("Stopping the lab")):
            bringup.stop_lab(lab)


def stay(lab: Lab) -> None:
    """Return when the lab has been brought down by somebody else. A daemon that has died is started again: what runs
    goes on meanwhile."""
    from ailab import bringup

    never = threading.Event()
    while not never.wait(LOOK_SECONDS):
        if bringup.daemon_pid(lab) is None:
            if not bringup.running_tasks(lab):
                return
            bringup.ensure_daemon(lab)
