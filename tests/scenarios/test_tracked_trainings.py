"""Trainings as runs of MLflow: a job's, with what it ran; a notebook's; behind the login and nowhere else."""

from __future__ import annotations

import http.client
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import CommandLine
from job_lines import ended, submitted
from mlflow_runs import closed_run, pairs
from rooms import kernel
from web_door import web_door

from ailab.access import kernel_client
from ailab.access.services import MLFLOW_PREFIX
from ailab.tracking.api import Mlflow
from ailab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.tensorflow]
# Not a word of ailab or MLflow in it.
SCRIPT = """
import sys
import numpy as np
import tensorflow as tf

tf.keras.utils.set_random_seed(7)
x = np.random.RandomState(7).uniform(-1, 1, (256, 4)).astype("float32")
model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(1, activation="sigmoid")])
model.compile(tf.keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
model.fit(x, (x[:, 0] > 0).astype("float32"), epochs=3, batch_size=64, verbose=0, validation_split=0.25)
print("trained", len(sys.argv))
"""
OWN_WORDS = """
import mlflow

with mlflow.start_run():
    mlflow.log_metric("mine", 41.0)
    mlflow.log_text("some words", "words.txt")
print("uri", mlflow.get_tracking_uri())
"""


@pytest.fixture(scope="module")
def lab(tensorflow: CommandLine) -> CommandLine:
    """Up, and with MLflow installed, as it is when a lab has been up for a while."""
    tensorflow.run("up", timeout=900)
    wait_for(
        lambda: tensorflow.json("status")["mlflow"]["state"] in ("installed", "starting", "running"),
        timeout=300,
        what="MLflow to be installed",
        last=2.0,
    )
    return tensorflow


@pytest.fixture
def folder(lab: CommandLine) -> Iterator[Path]:
    made = lab.lab / "notebooks" / "tracked"
    made.mkdir()
    for name, text in (("train.py", SCRIPT), ("own.py", OWN_WORDS)):
        (made / name).write_text(text)
    owner = lab.lab.stat()
    for path in (made, *made.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid)
    yield made
    shutil.rmtree(made)


def test_a_keras_job_is_a_run_with_all_that_it_ran(lab: CommandLine, folder: Path) -> None:
    words = ("--cwd", str(folder), "--seed", "7", "--name", "tracked", "--", "python", "train.py", "--rate", "0.5")
    (job,) = submitted(lab, *words)
    seen = ended(lab, job)
    assert seen["state"] == "done", lab.run("logs", str(job)).stdout
    # Its curves are in the portal, too, though the script does not know of it.
    assert "val_loss" in seen["progress"]["metrics"]
    run = closed_run(lab, f"tags.`ailab.job` = '{job}'")
    assert (run["info"]["status"], run["info"]["run_name"]) == ("FINISHED", "tracked")
    metrics, params, tags = (pairs(run, kind) for kind in ("metrics", "params", "tags"))
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= metrics.keys()
    expected = {"epochs": "3", "batch_size": "64", "opt_name": "Adam", "validation_split": "0.25", "args.rate": "0.5"}
    assert expected.items() <= params.items()
    assert tags["ailab.seed"] == "7" and tags["mlflow.source.name"] == "train.py"
    assert tags["ailab.generation"] == lab.json("status")["environment"]["id"]
    assert len(tags["ailab.code"]) == 64 and tags["mlflow.user"] == seen["owner"]
    server = Mlflow(lab.paths.mlflow_socket, MLFLOW_PREFIX)
    history = server._call("GET", f"metrics/get-history?run_id={run['info']['run_id']}&metric_key=loss")["metrics"]
    assert [point["step"] for point in history] == [1, 2, 3]


def test_what_a_script_tells_mlflow_itself_is_in_the_jobs_run(lab: CommandLine, folder: Path) -> None:
    (job,) = submitted(lab, "--cwd", str(folder), "--", "python", "own.py")
    assert ended(lab, job)["state"] == "done", lab.run("logs", str(job)).stdout
    run = closed_run(lab, f"tags.`ailab.job` = '{job}'")
    assert pairs(run, "metrics")["mine"] == 41.0
    server = Mlflow(lab.paths.mlflow_socket, MLFLOW_PREFIX)
    assert server._call("GET", f"artifacts/list?run_id={run['info']['run_id']}")["files"][0]["path"] == "words.txt"


def test_a_job_that_fails_is_a_run_that_failed(lab: CommandLine, folder: Path) -> None:
    (job,) = submitted(
        lab, "--cwd", str(folder), "--", "python", "-c", "import time; time.sleep(4); raise SystemExit(3)"
    )
    ended(lab, job)
    run = closed_run(lab, f"tags.`ailab.job` = '{job}'")
    assert run["info"]["status"] == "FAILED" and pairs(run, "tags")["ailab.reason"] == "exit-status"


def test_a_training_in_a_notebook_is_a_run(lab: CommandLine) -> None:
    user = lab.json("status")["tasks"] and next(
        task["owner"] for task in lab.json("status")["tasks"] if task["kind"] == "workspace"
    )
    opened = kernel(lab, user)
    printed = kernel_client.execute(web_door(lab, user), opened, SCRIPT)
    assert "trained" in printed
    run = closed_run(lab, "tags.`ailab.kernel` LIKE '%'")
    assert run["info"]["status"] == "FINISHED" and pairs(run, "params")["opt_learning_rate"].startswith("0.01")
    wait_for(lambda: not list(lab.paths.trainings.iterdir()), timeout=10, what="the training's file to be removed")
    told = kernel_client.execute(web_door(lab, user), opened, OWN_WORDS)
    assert lab.json("status")["url"].rstrip("/") + MLFLOW_PREFIX in told


def test_mlflow_is_behind_the_login_and_nowhere_else(lab: CommandLine) -> None:
    door = http.client.HTTPConnection(*lab.web, timeout=60)
    door.request("GET", f"{MLFLOW_PREFIX}/api/2.0/mlflow/experiments/get?experiment_id=0")
    answer = door.getresponse()
    assert answer.status == 401 and json.loads(answer.read())["error"]["kind"] == "not-logged-in"
    server = next(task for task in lab.json("status")["tasks"] if task["id"] == "mlflow")
    assert not [one for one in psutil.net_connections("inet") if one.pid == server["pid"]]
