"""What may be asked for, and what it becomes."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest
from pydantic import ValidationError

from ailab.jobs.model import After
from ailab.jobs.wish import JobWish, parse_after, parse_array, parse_duration, parse_moment


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("2d", 172800)])
def test_times(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 weeks", "-3s", None, True])
def test_no_times(text: object) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


def test_moments() -> None:
    assert parse_moment("2026-12-24 18:30") == datetime(2026, 12, 24, 18, 30).timestamp()
    assert 0 < parse_moment("18:30") - time.time() <= 86400
    with pytest.raises(ValueError):
        parse_moment("tomorrow")


def test_what_comes_after_what() -> None:
    assert parse_after("12") == After(12, "ok") and parse_after("job-12:any") == After(12, "any")
    with pytest.raises(ValueError):
        parse_after("12:never")


def test_arrays() -> None:
    assert parse_array("1-20") == (1, 20) and parse_array("") is None
    for text in ("20-1", "1-99999", "x"):
        with pytest.raises(ValueError):
            parse_array(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpu": 1},
        {"cpus": -1},
        {"command": []},
        {"memory": "much"},
        {"env": {"A B": "1"}},
        {"gpu_fraction": 1.5},
        {"workers": 2},
        {"workers": 0},
        {"strategy": "together"},
    ],
)
def test_a_wish_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JobWish.model_validate({"command": ["true"]} | wrong)


@pytest.mark.parametrize(
    ("command", "title"),
    [(["python", "train.py", "--epochs", "3"], "train"), (["/bin/true"], "true"), (["python", "-m", "x"], "python")],
)
def test_a_job_is_called_by_its_script(command: list[str], title: str) -> None:
    assert JobWish(command=command).title() == title


def test_workers_say_how_they_train_together() -> None:
    (one,) = JobWish.model_validate({"command": ["true"], "workers": 3, "strategy": "ps"}).requests(cpus=2)
    assert (one.workers, one.strategy, one.cpus) == (3, "ps", 2)
    (lone,) = JobWish.model_validate({"command": ["true"]}).requests(cpus=2)
    assert (lone.workers, lone.strategy) == (1, "")
    with pytest.raises(ValidationError, match="mirrored, multiworker, ps, horovod"):
        JobWish.model_validate({"command": ["true"], "workers": 2})
