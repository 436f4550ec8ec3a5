"""What keeps the start of the hub and the workspaces short: importing this first tells their process.

Modules that they need not load are kept out, and until they have started nobody looks for garbage, which would take a
sixth of their start: nearly all that they make, they keep.
"""

from __future__ import annotations

import gc
import sys
import threading
from types import ModuleType

START_SECONDS = 10.0

# Checkers of IRIs, URIs and durations, which jsonschema loads where they are installed: the first compiles a grammar
# for a second at each start. With None here the import fails as if they were not installed, which jsonschema expects;
# we have nothing to check with them.
for _checker in ("rfc3987_syntax", "rfc3986_validator", "isoduration"):
    sys.modules[_checker] = None  # type: ignore[assignment]  # how the import system marks what must not load
# httpx as a program, which draws with Rich. It expects that this may not be installed.
sys.modules["httpx._main"] = None  # type: ignore[assignment]
# What alembic knows of other databases than the hub's, which is SQLite.
for _other in ("mssql", "mysql", "oracle", "postgresql"):
    sys.modules[f"alembic.ddl.{_other}"] = ModuleType(_other)

gc.disable()
_started = threading.Timer(START_SECONDS, gc.enable)
_started.daemon = True
_started.start()
