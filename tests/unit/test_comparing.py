"""Jobs beside each other: what differs, which is best, and that it fits a terminal."""

from __future__ import annotations

import math
from typing import Any
from unicodedata import east_asian_width

from ailab.cli.comparison_text import lines
from ailab.jobs.comparing import Reached, direction, reached, varying, winners
from ailab.jobs.snapshots import Snapshot


def test_only_what_differs_is_told_and_a_missing_value_is_one() -> None:
    a = Snapshot(("python", "a.py", "--rate", "0.1"), "/x", "c1", seed=1)
    b = Snapshot(("python", "a.py", "--rate", "0.2", "--deep"), "/x", "c1")
    rows = varying([a, b, a], [{"epochs": "3"}, {"epochs": "4"}, {"epochs": "3"}])
    assert [(row.kind, row.name, row.values) for row in rows] == [
        ("parameter", "epochs", ("3", "4", "3")),
        ("argument", "--deep", (None, "", None)),
        ("argument", "--rate", ("0.1", "0.2", "0.1")),
        ("seed", "", ("1", None, "1")),
    ]
    assert varying([a, a]) == []


def test_what_is_better_is_told_by_the_words_of_a_name() -> None:
    assert [direction(name) for name in ("val_loss", "accuracy", "val/top5-acc", "lr", "glossary")] == [-1, 1, 1, 0, 0]
    assert reached("loss", [(1.0, 0.5), (2.0, 0.3), (3.0, math.nan)]) is not None
    found = reached("loss", [(1.0, 0.5), (2.0, 0.3), (3.0, 0.3)])
    assert found == Reached(0.3, 0.3, 2.0)
    assert reached("lr", [(1.0, 0.5)]) == Reached(0.5) and reached("loss", []) is None
    assert winners("loss", [Reached(1, 0.3, 1), None, Reached(1, 0.2, 1)]) == [False, False, True]
    assert winners("loss", [Reached(1, 0.3, 1), Reached(2, 0.3, 1)]) == [False, False]


def compared(count: int, name: str) -> dict[str, Any]:
    jobs = [{"id": 1000 + index, "name": name, "state": "done"} for index in range(count)]
    curves: list[Any] = [[[x, math.sin(x) * 10.0**index] for x in range(1, 40)] for index in range(count)]
    curves[-1] = [[1.0, None], [2.0, 1e300]]
    differing = {"kind": "argument", "name": "--" + "long" * 20, "values": ["v" * 50] * count}
    return {
        "jobs": jobs,
        "metrics": {
            "loss": [{"last": 1.0, "best": 0.5, "at": 3.0}] * (count - 1) + [{"last": None, "best": None, "at": None}]
        },
        "curves": {"loss": curves},
        "differences": [differing, {"kind": "package", "name": "numpy", "values": ["1"] * count}],
        "links": {"tensorboard": None},
    }


def wide(text: str) -> int:
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def test_it_fits_eighty_columns_with_any_names_and_any_number_of_jobs() -> None:
    for count in (2, 5, 13):
        for name in ("x", "a name that is far too long for a column", "一个很长很长的名字用于测试宽度"):
            said = list(lines(compared(count, name)))
            assert said and max(map(wide, said)) <= 80, max(said, key=wide)
            assert sum("loss" in each for each in said) >= 2
