"""A training that is killed in its middle and started again ends with the numbers of one that was left alone."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CHECKOUT, CommandLine, plain_environment

from ailab.jobs import progress
from ailab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.tensorflow]
EPOCHS = 6
SECONDS = 240.0
Words = Callable[[Path], list[str]]


def from_the_docs(folder: Path) -> list[str]:
    """The `train.py` that the how-to shows, as long as the example."""
    page = (CHECKOUT / "docs/how-to/progress-and-checkpoints.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(# train\.py\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert code.count("EPOCHS, BATCH, SEED = 20,") == 1
    (folder / "train.py").write_text(code.replace("SEED = 20,", f"SEED = {EPOCHS},"))
    return [str(folder / "train.py")]


def the_example(_folder: Path) -> list[str]:
    return [str(CHECKOUT / "examples/digits_cnn.py"), "--epochs", str(EPOCHS), "--pictures", "1024"]


class Trainer:
    """A script in the lab's environment, as a job runs it, with a place of its own for progress and checkpoints."""

    def __init__(self, lab: CommandLine, words: list[str], place: Path) -> None:
        place.mkdir()
        self.reported, self.checkpoints = place / "progress.jsonl", place / "checkpoints"
        self._words = [str(lab.paths.current / "bin/python"), *words]
        client = str(progress.CLIENT_FOLDER)
        self._environment = plain_environment(place, PYTHONPATH=client, PYTHONDONTWRITEBYTECODE="1") | {
            "AILAB_PROGRESS": str(self.reported),
            "AILAB_CHECKPOINTS": str(self.checkpoints),
            "CUDA_VISIBLE_DEVICES": "",
        }

    def start(self) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(self._words, env=self._environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    def finish(self) -> str:
        """Run it to its end: what it printed."""
        running = self.start()
        output, _nothing = running.communicate(timeout=SECONDS)
        assert running.returncode == 0, output
        return output

    def kill_after(self, epochs: int) -> None:
        running = self.start()
        try:
            done = self.checkpoints / f"epoch-{epochs:06d}.npz"
            wait_for(
                lambda: done.exists() or running.poll() is not None, timeout=SECONDS, what="a checkpoint", last=0.02
            )
        finally:
            running.kill()
            output, _nothing = running.communicate()
        assert running.returncode == -signal.SIGKILL, output


def final_loss(output: str) -> str:
    (found,) = re.findall(r"^final loss (\S+)", output, re.MULTILINE)
    return str(found)


@pytest.mark.parametrize("words", [the_example, from_the_docs])
def test_a_killed_training_ends_as_one_that_was_left_alone(
    tensorflow: CommandLine, tmp_path: Path, words: Words
) -> None:
    line = words(tmp_path)
    alone = final_loss(Trainer(tensorflow, line, tmp_path / "alone").finish())

    killed = Trainer(tensorflow, line, tmp_path / "killed")
    killed.kill_after(2)
    half = progress.read(killed.reported)
    assert half is not None and half.fraction is not None and half.fraction < 1.0
    # As if the kill had come in the middle of a save, and a disk had lost the newest one.
    newest = max(killed.checkpoints.glob("epoch-*.npz"))
    newest.write_bytes(newest.read_bytes()[:-1000])
    output = killed.finish()
    assert f"{newest} cannot be read" in output
    assert final_loss(output) == alone

    whole = progress.read(killed.reported)
    assert whole is not None and whole.fraction == 1.0 and whole.latest["loss"] > 0 and "accuracy" in whole.latest
    assert len(whole.series("loss")) > EPOCHS / 2
    kept = sorted(file.name for file in killed.checkpoints.iterdir())
    assert kept == [f"epoch-{EPOCHS - 1:06d}.npz", f"epoch-{EPOCHS:06d}.npz"]
    assert final_loss(killed.finish()) == alone, "what is done is not trained again"
