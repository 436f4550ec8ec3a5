"""Progress from the script that tells it, in a process of its own, to the bar and the curve that a person sees."""

from __future__ import annotations

import ast
import json
import math
import os
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ailab.i18n import use_language
from ailab.jobs import progress
from ailab.jobs.progress import Point, Progress, Trouble, bar, events_of, read
from ailab.portal.curves import svg_curve

CLIENT = progress.CLIENT_FOLDER
CHECKOUT = Path(__file__).parents[2]
NAN = float("nan")


# The client


@pytest.fixture
def told(tmp_path: Path) -> Path:
    return tmp_path / "progress.jsonl"


def script(code: str, told: Path | None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a job would be: the client's folder on PYTHONPATH, the file to write to in a variable."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CLIENT), "PYTHONDONTWRITEBYTECODE": "1", **more}
    if told is not None:
        environment["AILAB_PROGRESS"] = str(told)
    whole = f"import ailab_progress, time\n{textwrap.dedent(code)}"
    done = subprocess.run([sys.executable, "-c", whole], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done


def lines(told: Path) -> list[dict[str, Any]]:
    def no_such_word(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    text = told.read_text()
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=no_such_word) for line in text.splitlines()]


@pytest.mark.parametrize("file", [CLIENT / "ailab_progress.py", CHECKOUT / "examples/digits_cnn.py"])
def test_it_is_python_3_8(file: Path) -> None:
    ast.parse(file.read_text(), feature_version=(3, 8))


def test_it_needs_nothing_but_python() -> None:
    tree = ast.parse((CLIENT / "ailab_progress.py").read_text())
    wanted = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    wanted |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert wanted <= sys.stdlib_module_names
    assert sorted(file.name for file in CLIENT.iterdir() if file.name != "__pycache__") == ["ailab_progress.py"], (
        "all of the folder is importable in a job"
    )


def test_a_line_says_when_and_where_and_what(told: Path) -> None:
    script("ailab_progress.report(epoch=1, epochs=3, step=2, steps=4, loss=0.25, accuracy=0.5)", told)
    (line,) = lines(told)
    assert abs(line.pop("t") - told.stat().st_mtime) < 60
    where = {"epoch": 1, "epochs": 3, "step": 2, "steps": 4}
    assert line == {**where, "metrics": {"loss": 0.25, "accuracy": 0.5}}
    assert told.stat().st_mode & 0o077 == 0


def test_many_reports_are_few_lines_and_the_last_is_there(told: Path) -> None:
    script("for n in range(5000): ailab_progress.report(step=n, steps=5000, loss=n)", told)
    found = lines(told)
    assert found[0]["step"] == 0 and found[-1]["step"] == 4999 and found[-1]["metrics"] == {"loss": 4999}
    assert len(found) < 20


def test_a_report_that_is_not_written_costs_microseconds(told: Path) -> None:
    done = script(
        """
        started = time.perf_counter()
        for n in range(20000): ailab_progress.report(1, 2, n, 20000, 0.5, accuracy=0.5)
        print((time.perf_counter() - started) / 20000)
        """,
        told,
    )
    assert float(done.stdout) < 50e-6


def test_a_metric_that_is_told_once_between_two_lines_is_not_lost(told: Path) -> None:
    script("for loss in (3, 2): ailab_progress.report(loss=loss); ailab_progress.report(val_loss=9)", told)
    assert [line["metrics"] for line in lines(told)] == [{"loss": 3}, {"loss": 2, "val_loss": 9}]


def test_what_is_not_given_stays_but_a_new_epoch_begins_with_no_step(told: Path) -> None:
    script(
        """
        ailab_progress.INTERVAL = 0
        ailab_progress.report(epoch=1, epochs=3, steps=8)
        ailab_progress.report(step=8)
        ailab_progress.report(epoch=2)
        """,
        told,
    )
    places = [tuple(line[name] for name in ("epoch", "epochs", "step", "steps")) for line in lines(told)]
    assert places == [(1, 3, None, 8), (1, 3, 8, 8), (2, 3, None, 8)]


def test_numbers_that_json_lacks_are_words_and_what_is_no_number_is_left_out(told: Path) -> None:
    script(
        """
        class Tensor:
            def __float__(self): return 0.123456789012
        class Broken:
            def __float__(self): raise RuntimeError
            def __eq__(self, other): raise RuntimeError
        ailab_progress.report(epoch="x", loss=float("nan"), up=float("inf"), down=-float("inf"), tensor=Tensor(),
                              words="fast", nothing=None, broken=Broken())
        """,
        told,
    )
    (line,) = lines(told)
    assert line["epoch"] is None
    assert line["metrics"] == {"loss": "NaN", "up": "Infinity", "down": "-Infinity", "tensor": 0.123456789}


@pytest.mark.parametrize("place", ["/proc/nowhere/progress", "/", None])
def test_it_never_raises_and_says_why_it_is_silent_once(place: str | None) -> None:
    code = """
    class Broken:
        def __ne__(self, other): raise RuntimeError
    ailab_progress.INTERVAL = 0
    for n in range(3): ailab_progress.report(n)
    ailab_progress.report(Broken())
    """
    done = script(code, Path(place) if place else None)
    assert done.stderr.count("could not be written") == (2 if place else 0)


def test_a_long_file_is_thinned_and_loses_no_metric(told: Path) -> None:
    script(
        """
        ailab_progress.INTERVAL, ailab_progress.LIMIT = 0, 20_000
        for n in range(1, 3001):
            ailab_progress.report(epoch=n, epochs=3000, loss=1 / n)
            ailab_progress.report(val_loss=2 / n)
        """,
        told,
    )
    found = lines(told)
    assert told.stat().st_size <= 20_000 and [file.name for file in told.parent.iterdir()] == [told.name]
    assert len(found) > 60 and found[-1]["epoch"] == 3000 and found[0]["epoch"] < 300
    assert all(later["t"] >= earlier["t"] for earlier, later in pairwise(found))
    assert all("val_loss" in line["metrics"] for line in found[: len(found) // 4])


def test_a_training_of_weeks_keeps_its_beginning(told: Path) -> None:
    """Thinned a hundred times, the points are spread evenly over the whole time, a pause in it does not matter, and
    the newest are as they came."""
    code = """
    ailab_progress.INTERVAL, ailab_progress.LIMIT = 0, 20_000
    clock = [1_800_000_000.0]
    time.time = lambda: clock[0]
    for n in range(20_000):
        clock[0] += 90_000 if n == 5000 else 30
        ailab_progress.report(epoch=n + 1, epochs=20_000, loss=1)
    """
    script(code, told)
    epochs = [line["epoch"] for line in lines(told)]
    older, newest = epochs[:-20], epochs[-20:]
    assert newest == list(range(19_981, 20_001))
    steps = [later - earlier for earlier, later in pairwise([1, *older])]
    assert len(older) > 30 and max(steps[:20]) < 20_000 / 15


def test_after_a_line_that_a_kill_has_torn_comes_a_new_one(told: Path) -> None:
    told.write_text('{"t":1,"epoch":1,"epochs":2,"step":null,"steps":null,"metrics":{}}\n{"t":2,"epo')
    torn = read(told)
    assert torn is not None and len(torn.points) == 1
    script("ailab_progress.report(epoch=2)", told)
    whole = read(told)
    assert whole is not None and [point.epoch for point in whole.points] == [1, 2]


def test_a_killed_script_has_written_what_was_due(told: Path) -> None:
    script("import os; ailab_progress.report(1, 2); ailab_progress.report(2); os._exit(0)", told)
    assert [line["epoch"] for line in lines(told)] == [1]


def test_threads_and_handlers_of_signals_do_not_wait_for_each_other(told: Path) -> None:
    script(
        """
        import signal, threading
        ailab_progress.INTERVAL = 0
        signal.signal(signal.SIGALRM, lambda *_: ailab_progress.report(loss=0))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        def work():
            for n in range(500): ailab_progress.report(step=n)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        work()
        for thread in threads: thread.join()
        signal.setitimer(signal.ITIMER_REAL, 0)
        """,
        told,
    )
    assert len(lines(told)) > 10


def test_the_folder_for_checkpoints_is_the_jobs_and_is_made(tmp_path: Path) -> None:
    code = "print(repr(ailab_progress.checkpoint_folder()))"
    assert script(code, None).stdout == "None\n"
    folder = tmp_path / "one/two"
    assert script(code, None, AILAB_CHECKPOINTS=str(folder)).stdout == f"{folder!r}\n" and folder.is_dir()


def test_the_callback_reports_what_keras_tells_it(told: Path, tmp_path: Path) -> None:
    """With a stand-in for TensorFlow; the real one trains in tests/scenarios/test_progress.py."""
    (tmp_path / "tensorflow.py").write_text(
        textwrap.dedent(
            """
            class Callback:
                def __init__(self): self.model = self.params = None
            class keras:
                class callbacks: Callback = Callback
            """
        )
    )
    script(
        """
        ailab_progress.INTERVAL = 0
        callback = ailab_progress.keras()
        callback.params = {"verbose": 0, "epochs": 2, "steps": None}
        callback.on_test_batch_end(0, {"loss": 7.0})
        for epoch in range(2):
            callback.on_epoch_begin(epoch)
            for batch in range(2): callback.on_train_batch_end(batch, {"loss": 3.0 - batch, "step": 1.0})
            callback.on_test_batch_end(0, {"loss": 9.0})
            callback.on_epoch_end(epoch, {"loss": 1.0, "val_loss": 1.5})
        callback.on_train_end()
        """,
        told,
        PYTHONPATH=f"{CLIENT}:{tmp_path}",
    )
    found = lines(told)
    assert [(line["epoch"], line["step"], line["steps"]) for line in found[:5]] == [
        (1, 0, None), (1, 1, None), (1, 2, None), (1, 2, None), (1, 2, 2)
    ]  # fmt: skip
    assert [line["metrics"].get("loss") for line in found[:5]] == [None, 3.0, 2.0, None, 1.0]
    assert found[5]["epoch"] == 2 and found[-1]["metrics"] == {"loss": 1.0, "val_loss": 1.5}
    seen = read(told)
    assert seen is not None and seen.fraction == 1.0 and seen.latest == {"loss": 1.0, "step": 1.0, "val_loss": 1.5}


# The reader


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


# The curve


def drawn(*pairs: tuple[float, float], title: str = "") -> ET.Element:
    return ET.fromstring(svg_curve(pairs, 300, 120, title))


SVG = "{http://www.w3.org/2000/svg}"


def points_of(picture: ET.Element) -> list[list[tuple[float, float]]]:
    texts = [line.attrib["points"].split() for line in picture.iter(f"{SVG}polyline")]
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in text)] for text in texts]


def labels(picture: ET.Element) -> list[str]:
    return [str(text.text) for text in picture.iter(f"{SVG}text")]


def test_a_curve_is_one_line_with_its_ends_named() -> None:
    picture = drawn((1, 0.5), (2, 4), (3, 0.25))
    (line,) = points_of(picture)
    assert [x for x, _y in line] == [52, 172, 292] and line[1][1] == 8 and line[2][1] == 102
    assert labels(picture) == ["4", "0.25", "1", "3"]


def test_it_is_broken_where_there_is_no_number() -> None:
    picture = drawn((1, 1), (2, 2), (3, NAN), (4, math.inf), (5, 3), (6, NAN))
    first, dot = points_of(picture)
    assert len(first) == 2 and len(dot) == 2 and dot[0] == dot[1] == (292, 8)
    assert labels(picture) == ["3", "1", "1", "5"]


@pytest.mark.parametrize("pairs", [[], [(1.0, NAN)], [(NAN, 1.0)]])
def test_nothing_to_draw_is_a_dash(pairs: list[tuple[float, float]]) -> None:
    picture = drawn(*pairs)
    assert points_of(picture) == [] and labels(picture) == ["–"]


def test_what_does_not_change_is_in_the_middle() -> None:
    picture = drawn((1, 5), (2, 5))
    assert [y for _x, y in points_of(picture)[0]] == [55, 55] and labels(picture) == ["5", "1", "2"]
    assert labels(drawn((1, 5))) == ["5", "1"]
    huge = points_of(drawn((1, -1.7e308), (2, 1.7e308)))[0]
    assert [y for _x, y in huge] == [102, 8]


def test_a_title_is_text_and_nothing_else_and_the_colour_is_the_pages() -> None:
    text = svg_curve([(1, 1), (2, 2)], 300, 120, '</title><script>"&')
    assert "<script" not in text and "style=" not in text and "#" not in text.replace("http://", "")
    assert text.count("currentColor") >= 3
    assert str(ET.fromstring(text)[0].text) == '</title><script>"&'
