"""A lab's daemon whose loops end at once, whatever its watchdog does: `python daemon_with_dead_loops.py --lab DIR`."""

from __future__ import annotations

from ailab.daemon import main
from ailab.daemon.loop import Loop

if __name__ == "__main__":
    Loop._run = lambda self: None  # type: ignore[method-assign]
    main.main()
