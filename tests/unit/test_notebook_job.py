"""A notebook run in a real kernel, as a job runs it: parameters, failures, kills, stops, and what is kept then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from ailab.access.notebook_command import asked_for, program
from ailab.environments.kernel import kernel_spec
from ailab.waiting import wait_for

SOURCE = Path(__file__).parents[2] / "src"
JOB = 7
START_SECONDS = 60.0


class Room:
    """A folder with a notebook, and the program that runs it as a job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.copy = folder / f"train-job-{JOB}.ipynb"
        self.log = folder / "log"

    def write(self, *sources: str, tags: tuple[str, ...] = ()) -> None:
        cells = [new_code_cell(source, outputs=[new_output("stream", text="old")]) for source in sources]
        cells[0].metadata["tags"] = list(tags)
        nbformat.write(new_notebook(cells=cells), self.folder / "train.ipynb")

    @contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        run = asked_for(["train.ipynb", *words])
        assert run is not None
        kernel = kernel_spec(sys.executable, "test")
        python, _isolated, *rest = program(run, run.output_of(JOB), python=sys.executable, kernel=kernel)
        ours = {"AILAB_LAB": str(self.folder), "AILAB_JOB": str(JOB), "AILAB_LANGUAGE": "en", "PYTHONPATH": str(SOURCE)}
        with self.log.open("wb") as sink:
            process = subprocess.Popen(
                [python, "-P", *rest], env=os.environ | ours, cwd=self.folder, stdout=sink, stderr=sink
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def run(self, *words: str) -> int:
        with self.started(*words) as process:
            return process.wait(START_SECONDS)

    def wait_for(self, text: str) -> None:
        wait_for(lambda: text in self.log.read_text(), timeout=START_SECONDS, what=f"{text} in {self.log.read_text()}")

    @property
    def executed(self) -> Any:
        made = nbformat.read(self.copy, as_version=4)
        nbformat.validate(made)
        return made

    @property
    def texts(self) -> list[str]:
        """What each cell of the executed copy has written."""
        cells = self.executed.cells
        return ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    (tmp_path / ".ailab").mkdir(mode=0o700)
    return Room(tmp_path)


def test_parameters_outputs_and_the_log(room: Room) -> None:
    room.write("alpha = 1\nname = ''", "for n in range(300): print('line', n)\n2 + 2", "print(alpha * 2, name)",
               tags=("parameters",))  # fmt: skip
    before = (room.folder / "train.ipynb").read_bytes()
    assert room.run("-p", "alpha", "21", "-r", "name", "007", "-p", "beta", "1") == 0, room.log.read_text()
    made = room.executed
    assert (room.folder / "train.ipynb").read_bytes() == before
    assert made.metadata.ailab == {"job": JOB, "attempt": 1, "notebook": "train.ipynb", "state": "done",
                                   "parameters": {"alpha": 21, "name": "007", "beta": 1}}  # fmt: skip
    assert [cell.execution_count for cell in made.cells] == [1, 2, 3, 4]
    assert [output.output_type for output in made.cells[2].outputs] == ["stream", "execute_result"]
    assert room.texts[3] == "42 007\n"
    log = room.log.read_text()
    assert "[3/4] for n in range(300)" in log and "line 299\n4\n[4/4] print" in log
    assert "no parameter beta" in log and "no parameter alpha" not in log


def test_an_error_ends_it(room: Room) -> None:
    room.write("print('begun')", "1 / 0", "print('never')")
    assert room.run() == 1
    made, log = room.executed, room.log.read_text()
    assert made.cells[1].outputs[0].ename == "ZeroDivisionError" and made.cells[2].outputs == []
    assert made.metadata.ailab.state == "failed"
    assert "ZeroDivisionError: division by zero" in log and "\x1b" not in log and "Cell 2 failed" in log


def test_kill_9_in_the_middle_and_another_attempt(room: Room) -> None:
    wait = "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\nprint('in the second')\n"
    room.write("print('first')", wait + "pathlib.Path('again').exists() or time.sleep(600)")
    with room.started() as process:
        room.wait_for("in the second")
        kernel = psutil.Process(int((room.folder / "pid").read_text()))
        process.kill()
        process.wait()
        assert room.texts[0] == "first\n" and room.executed.metadata.ailab.state == "running"
        # It looks for its parent once a second: ipykernel's ParentPoller.
        kernel.wait(10)
    (room.folder / "again").touch()
    (room.folder / f".{room.copy.name}.1.new").write_text("what a kill in the middle of a write leaves")
    assert room.run() == 0, room.log.read_text()
    assert room.texts == ["first\n", "in the second\n"]
    assert not list(room.folder.glob(".*.new"))


def test_a_stop_lets_the_cell_save(room: Room) -> None:
    cell = "import time\ntry:\n  print('works')\n  time.sleep(600)\nexcept KeyboardInterrupt:\n  print('saved')"
    room.write(cell, "print('never')")
    with room.started() as process:
        room.wait_for("works")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM, room.log.read_text()
    assert room.texts == ["works\nsaved\n", ""]
    assert room.executed.metadata.ailab.state == "stopped" and "Stopped at cell 1." in room.log.read_text()


def test_a_kernel_that_is_killed_is_told(room: Room) -> None:
    room.write("import os, signal\nprint('so far', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)")
    assert room.run() == 128 + signal.SIGKILL, room.log.read_text()
    assert room.executed.cells[0].outputs[-1].evalue == "The kernel was ended by SIGKILL."
    assert "The kernel was ended by SIGKILL." in room.log.read_text()


def test_nothing_is_run_that_could_not_be_kept(room: Room) -> None:
    room.write("open('run', 'w')")
    assert room.run("--output", "missing/copy.ipynb") == 1
    assert "cannot be kept" in room.log.read_text() and not (room.folder / "run").exists()


def test_what_is_no_notebook(room: Room) -> None:
    for text in ("", "{", "[]", "{}"):
        (room.folder / "train.ipynb").write_text(text)
        assert room.run() == 1
        assert "cannot be read" in room.log.read_text(), text
