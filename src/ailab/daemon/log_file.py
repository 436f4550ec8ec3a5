"""The daemon's log: every line with time, level and module; bounded in size; a fault that repeats is one line."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ailab.command import redact

# Of each file; the newest is daemon.log, older ones are daemon.log.1 and so on.
LARGEST_BYTES = 4 * 1024 * 1024
OLDER_FILES = 4
# A message that comes again is counted, and the count is written at most this often; one that has not come for
# `QUIET_SECONDS` has ended.
REPEATED_SECONDS = 3600.0
QUIET_SECONDS = 60.0
_KNOWN_MESSAGES = 500
_NUMBERS = re.compile(r"\d+")

Key = tuple[str, int, str]


@dataclass
class _Repeated:
    """A message that has been written, how often it has come again since, and when it was first and last seen."""

    text: str
    since: float
    written: float
    last: float
    count: int = 0
    name: str = field(default="", repr=False)
    level: int = logging.WARNING


class LogFile(logging.Handler):
    """Writes to `path`, which is also this process's standard output and error: what native code or another library
    prints lands there too, and no rotation leaves it in an old file. A full disk costs lines, never the daemon."""

    def __init__(
        self, path: Path, *, largest: int = LARGEST_BYTES, older: int = OLDER_FILES, take_over: bool = True
    ) -> None:
        super().__init__()
        self._path = path
        self._largest = largest
        self._older = older
        self._take_over = take_over
        self._descriptor = -1
        self._lost = 0
        self._repeated: dict[Key, _Repeated] = {}
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._open()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._forget_ended(record.created)
            if not self._is_repeated(record):
                self._write(redact(self.format(record)))
        except Exception:
            # There is nowhere else to tell it.
            self._lost += 1

    def tend(self) -> None:
        """Write the counts of messages that have ended, and rotate a file that others have filled."""
        with contextlib.suppress(Exception), self.lock or contextlib.nullcontext():
            self._forget_ended(time.time())
            self._rotate(0)

    def flush_counts(self) -> None:
        """Write every count that has not been written."""
        with contextlib.suppress(Exception), self.lock or contextlib.nullcontext():
            self._forget_ended(time.time() + QUIET_SECONDS + 1)

    def _is_repeated(self, record: logging.LogRecord) -> bool:
        """Count a message that differs from an earlier one in nothing but numbers."""
        if record.levelno < logging.WARNING:
            return False
        now, text = record.created, record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f" {type(record.exc_info[1]).__name__}"
        key = (record.name, record.levelno, _NUMBERS.sub("#", text))
        known = self._repeated.get(key)
        if known is None:
            if len(self._repeated) >= _KNOWN_MESSAGES:
                oldest = min(self._repeated, key=lambda one: self._repeated[one].last)
                self._tell(self._repeated.pop(oldest), now)
            self._repeated[key] = _Repeated(record.getMessage(), now, now, now, 0, record.name, record.levelno)
            return False
        known.count, known.last = known.count + 1, now
        if now - known.written >= REPEATED_SECONDS:
            self._tell(known, now)
        return True

    def _forget_ended(self, now: float) -> None:
        for key, known in list(self._repeated.items()):
            if now - known.last > QUIET_SECONDS:
                self._tell(self._repeated.pop(key), now)

    def _tell(self, known: _Repeated, now: float) -> None:
        if not known.count:
            return
        text = f"{known.text} [repeated {known.count} times since {datetime.fromtimestamp(known.since):%m-%d %H:%M}]"
        record = logging.LogRecord(known.name, known.level, "", 0, text, None, None)
        known.count, known.since, known.written = 0, now, now
        self._write(redact(self.format(record)))

    def _write(self, text: str) -> None:
        if self._lost:
            text = f"[{self._lost} lines could not be written]\n{text}"
        data = f"{text}\n".encode(errors="backslashreplace")
        self._rotate(len(data))
        try:
            os.write(self._descriptor, data)
        except OSError:
            self._lost += 1
        else:
            self._lost = 0

    def _rotate(self, more: int) -> None:
        """Begin another file where this one is full, or is no longer the one at the path."""
        try:
            ours = os.fstat(self._descriptor)
            there = self._path.stat() if self._path.exists() else None
            if there is None or there.st_ino != ours.st_ino:
                self._open()
            elif ours.st_size and ours.st_size + more > self._largest:
                for number in range(self._older, 0, -1):
                    newer = self._numbered(number - 1)
                    if newer.exists():
                        newer.replace(self._numbered(number))
                self._open()
        except OSError:
            # It grows on, or not at all: the next line tries again.
            return

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

    def _open(self) -> None:
        opened = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(opened, 0o600)
        if self._take_over:
            sys.stdout.flush()
            sys.stderr.flush()
            for number in (1, 2):
                os.dup2(opened, number)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = opened

    def close(self) -> None:
        self.flush_counts()
        super().close()


def keep_log(path: Path) -> LogFile:
    """Have this process log to `path`: through `logging`, warnings, what threads raise, what crashes print."""
    handler = LogFile(path)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.raiseExceptions = False
    # One line for each request of ours to the hub and MLflow would be all that there is.
    for name in ("httpx", "httpcore", "urllib3", "docker", "alembic", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    logger = logging.getLogger("ailab.daemon")
    threading.excepthook = lambda raised: logger.error(
        "thread %s ended", getattr(raised.thread, "name", "?"), exc_info=raised.exc_value
    )
    sys.excepthook = lambda _kind, error, _trace: logger.critical("the daemon ended", exc_info=error)
    faulthandler.enable()
    return handler
