"""TensorFlow's own servers in a gang listen on all addresses: no stranger reaches them, and trainings are tracked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from conftest import CHECKOUT, CommandLine
from job_lines import END_SECONDS, ended, folder_of, submitted
from listeners import Listener, listeners, reached_by_a_stranger
from mlflow_runs import closed_run, pairs
from rooms import processes_of

from ailab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.tensorflow]
# A training that is tracked without a word of its own, and a word to MLflow, whose socket is a file.
TRAINING = """
import os, runpy
import mlflow

runpy.run_path("train_multiworker.py", run_name="__main__")
if os.environ["AILAB_WORKER"] == "0":
    with mlflow.start_run():
        mlflow.log_metric("mine", 41.0)
"""


def test_no_stranger_reaches_tensorflows_servers(tensorflow: CommandLine) -> None:
    tensorflow.run("up", timeout=900)
    with folder_of(tensorflow, "network") as folder:
        (folder / "train.py").write_text(TRAINING)
        for name in ("train_multiworker.py", "digits_cnn.py"):
            copy, owner = Path(shutil.copy(CHECKOUT / "examples" / name, folder)), folder.stat()
            os.chown(copy, owner.st_uid, owner.st_gid)
        words = ("--cwd", str(folder), "--workers", "2", "--strategy", "multiworker", "--cpus", "1", "--", "python")
        (job,) = submitted(tensorflow, *words, "train.py", "--epochs", "1", "--pictures", "512")

        def servers() -> list[Listener] | None:
            of_job = [one for one in listeners(processes_of(tensorflow)) if one.task.startswith(f"job-{job}-")]
            found = [one for one in of_job if one.address in ("0.0.0.0", "::")]
            return found if len({one.port for one in found}) == 2 else None

        found = wait_for(servers, timeout=END_SECONDS, what="TensorFlow's servers", last=0.05)
        assert not any(one.here for one in found)
        assert reached_by_a_stranger({one.port for one in found}) == set()
        assert ended(tensorflow, job)["state"] == "done", tensorflow.run("logs", str(job)).stdout
        metrics = pairs(closed_run(tensorflow, f"tags.`ailab.job` = '{job}'"), "metrics")
        assert "loss" in metrics and metrics["mine"] == 41.0
