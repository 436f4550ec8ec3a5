"""A training as a job, with TensorFlow: its curves, the same again, and a machine that goes down under it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import CHECKOUT, CommandLine
from job_lines import END_SECONDS, ended, submitted

from ailab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.tensorflow]
EPOCHS = 4
TRAIN = ("python", "digits_cnn.py", "--epochs", str(EPOCHS), "--pictures", "512", "--seed", "7")


@pytest.fixture
def folder(tensorflow: CommandLine) -> Iterator[Path]:
    """A folder of the lab's with the example in it."""
    tensorflow.run("up", timeout=900)
    made = tensorflow.lab / "notebooks" / "training"
    made.mkdir()
    shutil.copy(CHECKOUT / "examples/digits_cnn.py", made)
    owner = tensorflow.lab.stat()
    for path in (made, *made.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid)
    yield made
    shutil.rmtree(made)


def submit(lab: CommandLine, folder: Path, *options: str) -> int:
    (job,) = submitted(lab, "--cwd", str(folder), "--seed", "7", *options, "--", *TRAIN)
    return job


def done(lab: CommandLine, job: int) -> Any:
    seen = ended(lab, job)
    assert seen["state"] == "done", lab.run("logs", str(job)).stdout
    return seen


def final_loss(lab: CommandLine, job: int) -> float:
    (found,) = re.findall(r"^final loss (\S+)", lab.run("logs", str(job)).stdout, re.MULTILINE)
    return float(found)


def test_a_rerun_gives_the_same_loss_whatever_has_become_of_the_script(tensorflow: CommandLine, folder: Path) -> None:
    first = submit(tensorflow, folder)
    seen = done(tensorflow, first)
    assert seen["progress"]["fraction"] == 1.0 and "loss" in seen["progress"]["metrics"]
    script = folder / "digits_cnn.py"
    script.write_text(script.read_text().replace("SIZE, BATCH = 16, 32", "SIZE, BATCH = 16, 64"))
    again = json.loads(tensorflow.run("rerun", str(first), "--json").stdout)["jobs"][0]
    assert done(tensorflow, again)["repeats"] == first
    assert abs(final_loss(tensorflow, again) - final_loss(tensorflow, first)) <= 1e-6
    assert tensorflow.json("jobs", "diff", str(first), str(again))["same"]
    other = submit(tensorflow, folder)
    done(tensorflow, other)
    assert final_loss(tensorflow, other) != final_loss(tensorflow, first)
    told = tensorflow.run("jobs", "diff", str(first), str(other)).stdout
    assert "digits_cnn.py" in told and "BATCH = 16, 64" in told


def kill_all_of(lab: CommandLine) -> None:
    """What a machine that goes down does to the lab: every process gone at once, sockets with nobody behind them, and
    later the numbers of the processes given to others."""
    account = lab.lab.stat().st_uid
    for process in psutil.process_iter():
        try:
            theirs = process.uids().real == account and process.pid != os.getpid()
            if theirs and str(lab.lab) in " ".join([*process.cmdline(), *process.environ().values(), process.cwd()]):
                process.send_signal(signal.SIGKILL)
        except psutil.Error:
            continue
    for child in lab.paths.tasks.glob("*/child.json"):
        known = json.loads(child.read_text())
        child.write_text(json.dumps(known | {"pid": os.getpid()}))


def test_after_a_reboot_a_job_goes_on_from_its_checkpoint_if_it_asked_for_it(
    tensorflow: CommandLine, folder: Path
) -> None:
    # On as many CPUs as the other: TensorFlow takes the same sums in another order where it sees more of them.
    alone = submit(tensorflow, folder, "--cpus", "1")
    done(tensorflow, alone)
    resumed = submit(tensorflow, folder, "--resume", "--cpus", "1")
    words = ("--cpus", "1", "--cwd", str(folder), "--", "sleep", "600")
    (lost,) = submitted(tensorflow, *words)
    checkpoints = tensorflow.paths.state / "jobs" / str(resumed) / "checkpoints"
    wait_for(lambda: list(checkpoints.glob("epoch-000002*")), timeout=END_SECONDS, what="a checkpoint", last=0.02)
    kill_all_of(tensorflow)
    tensorflow.run("up", timeout=900)
    seen = done(tensorflow, resumed)
    assert seen["attempt"] == 2
    assert final_loss(tensorflow, resumed) == final_loss(tensorflow, alone)
    gone = tensorflow.json("jobs", "show", str(lost))
    assert (gone["state"], gone["reason"]) == ("failed", "lost") and gone["note"]
    assert not [lease for lease in tensorflow.json("top")["leases"] if lease["task"].startswith("job-")]
