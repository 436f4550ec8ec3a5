"""What a training script tells of its progress, and what it costs it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ailab.jobs import progress
from ailab.jobs.progress import read

CLIENT = progress.CLIENT_FOLDER
CHECKOUT = Path(__file__).parents[2]
NAN = float("nan")


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


MODULES = ["ailab_progress", "ailab_trainings", "ailab_jobs", "ailab_magic", "sitecustomize"]


@pytest.mark.parametrize("module", MODULES)
def test_it_needs_nothing_but_python_and_what_is_beside_it(module: str) -> None:
    there = {file.stem for file in CLIENT.iterdir() if file.name != "__pycache__"}
    assert there == set(MODULES), "all of the folder is importable in a job"
    tree = ast.parse((CLIENT / f"{module}.py").read_text(), feature_version=(3, 8))
    wanted = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    wanted |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in wanted} <= sys.stdlib_module_names | there


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
        clock = [1_800_000_000.0]
        time.time = lambda: clock[0]
        for n in range(1, 3001):
            clock[0] += 0.001
            ailab_progress.report(epoch=n, epochs=3000, loss=1 / n)
            ailab_progress.report(val_loss=2 / n)
        """,
        told,
    )
    found = lines(told)
    assert told.stat().st_size <= 20_000 and [file.name for file in told.parent.iterdir()] == [told.name]
    assert len(found) > 60 and found[-1]["epoch"] == 3000 and found[0]["epoch"] < 300
    assert all(later["t"] >= earlier["t"] for earlier, later in pairwise(found))
    assert all(line["metrics"].keys() == {"loss", "val_loss"} for line in found[: len(found) // 4])


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


@pytest.fixture
def keras(tmp_path: Path) -> dict[str, str]:
    """Variables with which a script finds a stand-in for TensorFlow; the real one trains in
    tests/scenarios/test_progress.py."""
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
    return {"PYTHONPATH": f"{CLIENT}:{tmp_path}"}


def test_the_callback_reports_what_keras_tells_it(told: Path, keras: dict[str, str]) -> None:
    script(
        """
        ailab_progress.INTERVAL = ailab_progress.EPOCHS_INTERVAL = 0
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
        **keras,
    )
    found = lines(told)
    assert [(line["epoch"], line["step"], line["steps"]) for line in found[:5]] == [
        (1, 0, None), (1, 1, None), (1, 2, None), (1, 2, None), (1, 2, 2)
    ]  # fmt: skip
    assert [line["metrics"].get("loss") for line in found[:5]] == [None, 3.0, 2.0, None, 1.0]
    assert found[5]["epoch"] == 2 and found[-1]["metrics"] == {"loss": 1.0, "val_loss": 1.5}
    seen = read(told)
    assert seen is not None and seen.fraction == 1.0 and seen.latest == {"loss": 1.0, "step": 1.0, "val_loss": 1.5}


def test_each_epoch_of_a_fast_training_has_a_point_with_its_metrics(told: Path, keras: dict[str, str]) -> None:
    script(
        """
        ailab_progress.INTERVAL = 1000.0
        callback = ailab_progress.keras()
        callback.params = {"epochs": 5, "steps": 1}
        for epoch in range(5):
            callback.on_epoch_begin(epoch)
            callback.on_train_batch_end(0, {"loss": 9.0})
            time.sleep(ailab_progress.EPOCHS_INTERVAL)
            callback.on_epoch_end(epoch, {"loss": 5.0 - epoch})
        """,
        told,
        **keras,
    )
    seen = read(told)
    assert seen is not None
    assert [point.metrics["loss"] for point in seen.points if "loss" in point.metrics] == [5.0, 4.0, 3.0, 2.0, 1.0]
