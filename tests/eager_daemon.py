"""A lab's daemon that looks for what tasks have lost more often: `python eager_daemon.py SECONDS --lab DIR`."""

from __future__ import annotations

import sys

from ailab.daemon import healing, main

if __name__ == "__main__":
    healing.LOOK_SECONDS = float(sys.argv.pop(1))
    main.main()
