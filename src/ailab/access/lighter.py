"""What keeps the start of the hub and the workspaces short: importing this first tells their process.

Modules that they need not load are kept out. Until they have started nobody looks for garbage, which would take a sixth
of their start (nearly all that they make, they keep), and the machine's certificate authorities are not read, for
which aiohttp asks when it is imported: a tenth of a second, and they speak through sockets then.
"""

from __future__ import annotations

import gc
import ssl
import sys
import threading
from types import ModuleType
from typing import Any

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

_read_authorities = ssl.SSLContext.load_default_certs
_asked: list[tuple[Any, ...]] = []


def _ask_later(*arguments: Any) -> None:
    _asked.append(arguments)


def _as_usual() -> None:
    gc.enable()
    ssl.SSLContext.load_default_certs = _read_authorities  # type: ignore[method-assign]
    for arguments in _asked:
        _read_authorities(*arguments)


ssl.SSLContext.load_default_certs = _ask_later  # type: ignore[method-assign,assignment]
gc.disable()
_started = threading.Timer(START_SECONDS, _as_usual)
_started.daemon = True
_started.start()
