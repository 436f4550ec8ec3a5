"""The daemon's log: a line says when, how bad and where from; a lasting fault is one line; its size is bounded."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ailab import command
from ailab.daemon.log_file import QUIET_SECONDS, REPEATED_SECONDS, LogFile


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogFile]:
    made = LogFile(tmp_path / "daemon.log", largest=20_000, older=3, take_over=False)
    yield made
    made.close()


def record(
    text: str, *, at: float | None = None, level: int = logging.ERROR, name: str = "ailab.loop"
) -> logging.LogRecord:
    made = logging.LogRecord(name, level, __file__, 1, text, None, None)
    made.created = at or made.created
    return made


def lines(log: LogFile) -> list[str]:
    return log._path.read_text().splitlines()


def test_a_line_has_time_level_and_module(log: LogFile) -> None:
    log.handle(record("the disk is full"))
    (line,) = lines(log)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ERROR ailab\.loop: the disk is full", line)


def test_a_fault_that_lasts_all_day_is_one_line_and_a_count(log: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two faults that alternate, each with a number that changes: one line each, and a count each hour."""
    now = [1000.0]
    monkeypatch.setattr("ailab.daemon.log_file.time.time", lambda: now[0])
    for second in range(24 * 3600):
        now[0] = 1000.0 + second
        log.handle(record(f"{'jobs' if second % 2 else 'reconcile'} failed in step {second}", at=now[0]))
    assert len(lines(log)) <= 2 + 2 * 24
    assert "[repeated 1799 times since" in lines(log)[2] or "[repeated 1800 times since" in lines(log)[2]
    now[0] += QUIET_SECONDS + 1
    log.tend()
    total = sum(int(found[1]) for found in map(re.compile(r"repeated (\d+) times").search, lines(log)) if found)
    assert total == 24 * 3600 - 2, "each is counted once"
    assert REPEATED_SECONDS == 3600


def test_counts_are_written_at_the_end(log: LogFile) -> None:
    for _time in range(3):
        log.handle(record("again"))
    log.close()
    assert "[repeated 2 times since" in lines(log)[-1]


def test_what_is_no_fault_is_never_left_out(log: LogFile) -> None:
    for _time in range(3):
        log.handle(record("started", level=logging.INFO))
    assert len(lines(log)) == 3


def test_its_size_is_bounded(log: LogFile) -> None:
    for number in range(5000):
        log.handle(record(f"{number} " + "x" * 100, level=logging.INFO))
    files = sorted(log._path.parent.iterdir())
    assert [one.name for one in files] == ["daemon.log", "daemon.log.1", "daemon.log.2", "daemon.log.3"]
    assert all(one.stat().st_size <= 20_000 and one.stat().st_mode & 0o777 == 0o600 for one in files)
    assert lines(log)[-1].split()[4] == "4999"


def test_a_log_that_somebody_removed_is_begun_again(log: LogFile) -> None:
    log.handle(record("one"))
    log._path.unlink()
    log.handle(record("two"))
    assert len(lines(log)) == 1


def test_a_full_disk_costs_lines_and_says_so(log: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("ailab.daemon.log_file.os.write", refused)
        for number in range(3):
            log.handle(record(f"lost {'x' * number}"))
    log.handle(record("there is room"))
    assert lines(log)[0] == "[3 lines could not be written]"


def test_what_is_printed_lands_in_it_through_every_rotation(tmp_path: Path) -> None:
    """As the daemon is started: what native code prints, and a crash, are in the newest file."""
    path = tmp_path / "daemon.log"
    code = (
        "import logging, os, sys, ctypes; from pathlib import Path; from ailab.daemon import log_file\n"
        "log_file.LARGEST_BYTES = 4096\n"
        f"log = log_file.keep_log(Path({str(path)!r}))\n"
        "log._largest = 4096\n"
        "for number in range(300): logging.getLogger('ailab.x').info('line %d', number)\n"
        "os.write(2, b'from native code\\n'); print('printed', flush=True)\n"
        "ctypes.string_at(0)\n"
    )
    process = command.start_detached([sys.executable, "-c", code], log=path)
    assert process.wait(30) == -11
    newest = path.read_text()
    assert "from native code" in newest and "printed" in newest and "Segmentation fault" in newest
    assert "line 299" in newest + path.with_name("daemon.log.1").read_text()
