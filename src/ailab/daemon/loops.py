"""The loop that reconciles: once a second, and at once when something has changed."""

from __future__ import annotations

import threading

from ailab.access.hub_client import add_portal_route, restore_routes
from ailab.daemon.environment import EnvironmentWatch
from ailab.daemon.healing import Healing
from ailab.daemon.parts import Parts
from ailab.daemon.troubles import Troubles
from ailab.runtimes.base import TaskState

EVERY_SECONDS = 1.0


class ReconcileLoop(threading.Thread):
    """Runs until `parts.leaving` is set. A step that fails is an event, and the next one is tried."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(name="reconcile", daemon=True)
        self._parts = parts
        self._environment = EnvironmentWatch(parts.lab, parts.supervisor)
        self._healing = Healing(parts.lab.runtime, parts.supervisor)
        self._proxy_attempt = 0
        self._troubles = Troubles(parts.lab.store, "reconcile")

    def run(self) -> None:
        while not self._parts.leaving.is_set():
            try:
                self._parts.supervisor.reconcile()
                self._look_after_proxy()
                self._environment.look()
                self._healing.look()
                self._troubles.over()
            except Exception as error:
                self._troubles.note(error)
            self._parts.leaving.wait(EVERY_SECONDS)

    def _look_after_proxy(self) -> None:
        """A proxy that was started anew knows no routes: give it the portal's, and have the hub give it the others."""
        seen = self._parts.lab.runtime.poll("proxy")
        if seen.state != TaskState.running or seen.attempt == self._proxy_attempt:
            return
        if add_portal_route(self._parts.lab.paths) and restore_routes(self._parts.lab.paths):
            self._proxy_attempt = seen.attempt
