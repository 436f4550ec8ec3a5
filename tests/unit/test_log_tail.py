"""What was written to a log since a moment: in the same file, in a rotated one, in one that is new."""

from __future__ import annotations

from pathlib import Path

import pytest

from ailab import log_tail


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "daemon.log"


def append(log: Path, text: str) -> None:
    with log.open("a") as sink:
        sink.write(text)


def test_lines_of_an_earlier_start_are_left_out(log: Path) -> None:
    append(log, "earlier\n")
    before = log_tail.end_of(log)
    assert log_tail.text_after(log, before) == ""
    append(log, "now\n")
    assert log_tail.text_after(log, before) == "now\n"


def test_of_a_log_that_was_rotated_the_rest_comes_first(log: Path) -> None:
    append(log, "earlier\n")
    before = log_tail.end_of(log)
    append(log, "now\n")
    log.rename(log.with_name("daemon.log.1"))
    append(log, "then\n")
    assert log_tail.text_after(log, before) == "now\nthen\n"


def test_an_older_rotated_log_is_not_looked_at(log: Path) -> None:
    append(log.with_name("daemon.log.1"), "long ago\n")
    before = log_tail.end_of(log)
    assert log_tail.text_after(log, before) == ""
    append(log, "now\n")
    assert log_tail.text_after(log, before) == "now\n"


def test_a_log_that_was_emptied_is_read_from_its_start(log: Path) -> None:
    append(log, "a long earlier line\n")
    before = log_tail.end_of(log)
    log.write_text("now\n")
    assert log_tail.text_after(log, before) == "now\n"
