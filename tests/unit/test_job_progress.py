"""How far a job is, read from what its script has told."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from ailab.i18n import use_language
from ailab.jobs import progress
from ailab.jobs.progress import Point, Progress, Trouble, bar, events_of, read

CLIENT = progress.CLIENT_FOLDER
CHECKOUT = Path(__file__).parents[2]
NAN = float("nan")


@pytest.fixture
def told(tmp_path: Path) -> Path:
    return tmp_path / "progress.jsonl"


def at(t: float, epoch: int | None = None, step: int | None = None, **metrics: float) -> Point:
    """A point of a training of 10 epochs with 100 steps each."""
    return Point(t, epoch, 10 if epoch else None, step, 100 if step is not None else None, metrics)


def of(*points: Point) -> Progress:
    return Progress(points)


@pytest.mark.parametrize(
    ("point", "fraction"),
    [
        (at(0, 1, 0), 0.0),
        (at(0, 3, 50), 0.25),
        (at(0, 3), 0.3),
        (at(0, 10, 100), 1.0),
        (at(0, 12, 100), 1.0),
        (at(0, None, 25), 0.25),
        (at(0, 1, 500), 0.1),
        (Point(0, 3, 10, 7, None, {}), 0.2),
        (Point(0, 0, 10, 0, 100, {}), 0.0),
        (Point(0, 3, None, 7, None, {}), None),
        (Point(0, 3, 0, 7, 0, {}), None),
        (Point(0, None, None, 7, None, {}), None),
        (at(0), None),
    ],
)
def test_how_much_is_done(point: Point, fraction: float | None) -> None:
    assert point.fraction == (None if fraction is None else pytest.approx(fraction))


def test_no_file_and_no_points_are_no_progress(told: Path) -> None:
    assert read(told) is None
    told.write_text("")
    assert read(told) is None
    told.write_text("Epoch 1/10\n[1, 2]\n7\nnull\n\n")
    assert read(told) is None


@pytest.mark.parametrize(
    "line",
    [
        b'{"t":',
        b"\xff\xfe",
        b'{"t": NaN, "metrics": {}}',
        b'{"t": 1}',
        b'{"t": 1, "metrics": []}',
        b'{"t": [], "metrics": {}}',
        b"[" * 100_000,
        b'{"t": ' + b"9" * 400 + b', "metrics": {}}',
    ],
)
def test_a_line_that_is_no_point_is_passed_over(told: Path, line: bytes) -> None:
    told.write_bytes(line + b'\n{"t": 1, "metrics": {"loss": 2}}\n' + line)
    found = read(told)
    assert found is not None and found.points == (at(1, loss=2.0),)


def test_what_a_script_writes_itself_is_read_with_care(told: Path) -> None:
    metrics = {
        "a\x1b[31m": 1,
        "yes": True,
        "list": [],
        "word": "fast",
        "huge": 10**400,
        "nan": "NaN",
        "down": "-Infinity",
    }
    told.write_text(json.dumps({"t": 1, "epoch": -1, "epochs": 1.5, "step": True, "steps": "x", "metrics": metrics}))
    found = read(told)
    assert found is not None
    assert (found.last.epoch, found.last.epochs, found.last.step, found.last.steps) == (None,) * 4
    assert set(found.latest) == {"a[31m", "nan", "down"} and math.isnan(found.latest["nan"])
    assert found.latest["down"] == -math.inf


def test_neither_a_pipe_nor_a_link_nor_a_folder_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "real").write_text('{"t": 1, "metrics": {}}')
    (tmp_path / "link").symlink_to("real")
    assert read(tmp_path / "real") is not None
    assert [read(tmp_path / "pipe"), read(tmp_path / "link"), read(tmp_path)] == [None, None, None]


def test_only_the_end_of_a_great_file_is_read(told: Path) -> None:
    told.write_text("".join(f'{{"t": {n}, "metrics": {{"loss": {n}}}}}\n' for n in range(1000)))
    found = read(told, last_bytes=200)
    assert found is not None and 1 < len(found.points) < 10 and found.last.t == 999
    everything = read(told)
    assert everything is not None and len(everything.points) == 1000


def test_latest_is_the_last_value_of_each_metric() -> None:
    assert of(at(0, loss=3, val_loss=4), at(1, loss=2)).latest == {"loss": 2, "val_loss": 4}


def test_eta_is_by_the_rate() -> None:
    assert of(at(0, 1, 0), at(60, 1, 100), at(120, 2, 100)).eta_seconds == pytest.approx(480)
    assert of(at(0, 5)).eta_seconds is None
    assert of(at(0, 5), at(9, 5)).eta_seconds is None
    assert of(at(0), at(9)).eta_seconds is None
    assert of(at(0, 9), at(60, 10)).eta_seconds == 0.0


def test_eta_is_by_the_rate_of_the_last_minutes() -> None:
    slow = [at(t, 1, t // 100) for t in range(0, 5000, 50)]
    quick = [at(5000 + t, 2 + t // 100, t % 100) for t in range(0, 400, 10)]
    assert of(*slow, *quick).eta_seconds == pytest.approx((1000 - 490) * 1.0, rel=0.02)


def test_rare_points_give_a_rate_too() -> None:
    assert of(*(at(3600 * n, n) for n in range(1, 8))).eta_seconds == pytest.approx(3 * 3600)


def test_eta_forgets_what_was_before_a_start_anew() -> None:
    before = [at(t, 6, t) for t in range(0, 90, 10)]
    again = [at(100 + t, 6, t // 2) for t in range(0, 100, 10)]
    assert of(*before, *again).eta_seconds == pytest.approx((400 + 100 - 45) * 2)


def test_eta_is_told_though_the_clock_went_back() -> None:
    assert of(at(1000, 1), at(0, 2), at(60, 3)).eta_seconds == pytest.approx(420)


def test_a_curve_is_over_epochs_and_a_repeated_epoch_replaces_what_was() -> None:
    found = of(
        at(0, 1, 50, loss=5), at(1, 2, 0, val_loss=1), at(2, 2, 50, loss=4), at(3, 2, 20, loss=4.5), at(4, 3, loss=2)
    )
    assert found.series("loss") == [(0.5, 5), (pytest.approx(1.2), 4.5), (3.0, 2)]
    assert found.series("val_loss") == [(1.0, 1)] and found.series("none") == []
    assert of(at(7, loss=1), at(9, loss=2)).series("loss") == [(0, 1), (2, 2)]


def test_a_long_curve_is_made_coarser_and_keeps_its_gaps() -> None:
    values = [NAN if 400 <= n < 600 or n == 1 else float(n) for n in range(1000)]
    curve = of(*(Point(n, None, None, n, None, {"loss": value}) for n, value in enumerate(values))).series("loss", 10)
    assert [where for where, _value in curve] == [99, 199, 299, 399, 499, 599, 699, 799, 899, 999]
    assert [round(value) if math.isfinite(value) else None for _where, value in curve] == [
        50, 150, 250, 350, None, None, 650, 750, 850, 950
    ]  # fmt: skip


def test_a_metric_that_is_no_number_is_told() -> None:
    found = events_of(of(at(0, 1, loss=NAN, val_loss=1), at(1, 1, val_loss=math.inf)), now=2)
    assert [(event.kind, event.metric) for event in found] == [(Trouble.nan, "loss"), (Trouble.nan, "val_loss")]
    assert found[0].sentence() == "loss is no finite number any more: nan."
    assert events_of(of(at(0, 1, loss=NAN), at(1, 1, loss=1)), now=2) == []


def test_a_stall_is_told_when_it_is_longer_than_usual() -> None:
    quick = of(*(at(t, 1, t) for t in range(10)))
    assert events_of(quick, now=9 + 600) == []
    (event,) = events_of(quick, now=9 + 601)
    assert event.kind is Trouble.stalled and event.seconds == 601
    assert event.sentence() == "No progress has been reported for 10 minutes."
    slow = of(*(at(300 * n, n) for n in range(1, 6)))
    assert events_of(slow, now=1500 + 20 * 300) == []
    assert [event.kind for event in events_of(slow, now=1501 + 20 * 300)] == [Trouble.stalled]
    one_gap = of(at(0, 1, 0), at(1, 1, 1), at(90_000, 1, 2), at(90_001, 1, 3))
    assert events_of(one_gap, now=90_001 + 700) != []
    assert events_of(of(at(0, 10)), now=9999) == [], "what is done may be silent"
    assert events_of(of(at(0)), now=9999) != []


def test_events_are_told_in_chinese() -> None:
    use_language("zh")
    try:
        assert events_of(of(at(0)), now=720)[0].sentence() == "已有 12 分钟没有报告进度。"
    finally:
        use_language(None)


def test_the_bar() -> None:
    found = of(at(0, 2, 50, loss=0.5), at(20, 3, 50, loss=0.21341, accuracy=0.9))
    assert bar(found) == "epoch 3/10 [#####               ] loss 0.2134 ETA 2:30"
    assert bar(found, 44) == "epoch 3/10 [##        ] loss 0.2134 ETA 2:30"
    assert bar(found, 35) == "epoch 3/10 loss 0.2134 ETA 2:30"
    assert bar(found, 22) == "epoch 3/10 ETA 2:30"
    assert bar(found, 5) == "epoch"


@pytest.mark.parametrize(
    ("point", "said"),
    [
        (at(0, 10, 100, loss=0.1), "epoch 10/10 [####################] loss 0.1"),
        (at(0, None, 25, accuracy=0.5), "step 25/100 [#####               ] accuracy 0.5"),
        (Point(0, 3, None, None, None, {"loss": NAN}), "epoch 3 loss nan"),
        (Point(0, None, None, 12, None, {}), "step 12"),
        (at(0), ""),
    ],
)
def test_the_bar_of_what_little_is_known(point: Point, said: str) -> None:
    assert bar(of(point)) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0:00"), (59.6, "1:00"), (80, "1:20"), (7380, "2:03:00"), (273600, "3d 04:00:00")]
)
def test_a_clock(seconds: float, said: str) -> None:
    assert progress._clock(seconds) == said
