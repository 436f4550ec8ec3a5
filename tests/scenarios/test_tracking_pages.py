"""A person looks at trainings: some jobs compared, their run in MLflow, and TensorBoard with these alone."""

from __future__ import annotations

import http.client
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import enter, needs_chromium, opened_page, shoot
from conftest import CommandLine
from job_lines import ended, submitted

from ailab.access.services import MLFLOW_PREFIX
from ailab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.tensorflow, pytest.mark.browser, needs_chromium]
SCRIPT = """
import os, sys
import numpy as np
import tensorflow as tf

rate = float(sys.argv[1])
x = np.random.RandomState(7).uniform(-1, 1, (256, 4)).astype("float32")
model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(1, activation="sigmoid")])
model.compile(tf.keras.optimizers.SGD(rate), "binary_crossentropy", metrics=["accuracy"])
board = tf.keras.callbacks.TensorBoard(os.environ["AILAB_LOGS"])
model.fit(x, (x[:, 0] > 0).astype("float32"), epochs=4, verbose=0, callbacks=[board])
"""


@pytest.fixture
def jobs(tensorflow: CommandLine) -> Iterator[list[int]]:
    """Three jobs that have trained with different rates."""
    tensorflow.run("up", timeout=900)
    folder: Path = tensorflow.lab / "notebooks" / "compared"
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    owner = tensorflow.lab.stat()
    for path in (folder, folder / "train.py"):
        os.chown(path, owner.st_uid, owner.st_gid)
    words = ("--cwd", str(folder), "--cpus", "1", "--")
    made = [submitted(tensorflow, *words, "python", "train.py", rate)[0] for rate in ("0.01", "0.1", "1.0")]
    for job in made:
        assert ended(tensorflow, job)["state"] == "done", tensorflow.run("logs", str(job)).stdout
    yield made
    shutil.rmtree(folder)


def test_jobs_are_compared_on_a_page_in_mlflow_and_in_tensorboard(tensorflow: CommandLine, jobs: list[int]) -> None:
    wait_for(
        lambda: all(tensorflow.json("jobs", "show", str(job))["links"]["mlflow"] for job in jobs),
        timeout=300,
        what="the jobs' runs in MLflow",
        last=2.0,
    )
    link = tensorflow.json("open")["url"]
    lab = link.split("/hub/")[0]
    with opened_page("tracking") as page:
        enter(page, link)
        page.goto(f"{lab}/services/ailab/jobs")
        for job in jobs[:2]:
            page.check(f"input[name=job][value='{job}']")
        # The page fetches its table anew; what is chosen stays chosen.
        page.evaluate("document.getElementById('live').dataset.shown = ''; refresh()")
        assert page.locator("input[name=job]:checked").count() == 2
        page.click("text=Compare the chosen")
        page.wait_for_url("**/jobs/compare?**")
        page.locator("figure", has_text="loss").locator("polyline.line-1").first.wait_for()
        assert page.locator("figure").first.locator("polyline").count() == 2
        page.locator("tr", has_text="opt_learning_rate").locator("code", has_text="0.1").wait_for()
        shoot(page, "compare")
        page.click("text=All of them in TensorBoard")
        page.locator("runs-data-table, tb-data-table, runs-table", has_text=f"jobs/{jobs[0]}/train").first.wait_for()
        shoot(page, "compare-tensorboard")
        shown = page.locator("body").inner_text()
        assert f"jobs/{jobs[1]}/train" in shown and f"jobs/{jobs[2]}/train" not in shown
        page.goto(f"{lab}/services/ailab/jobs/{jobs[2]}")
        page.locator("figure", has_text="accuracy").locator("polyline").first.wait_for()
        page.click("text=Its run in MLflow")
        page.locator("text=opt_learning_rate").first.wait_for()
        shoot(page, "mlflow-run")
        token = page.evaluate(
            """async () => {
                const xsrf = document.cookie.match(/_xsrf=([^;]*)/);
                const page = await (await fetch("/hub/token")).text();
                const word = page.match(/xsrf_token: "([^"]*)"/)[1];
                const answer = await fetch(`/hub/api/users/admin/tokens?_xsrf=${encodeURIComponent(word)}`,
                    {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({note: "t"})});
                return (await answer.json()).token;
            }"""
        )
    # From another machine: through the door, by a token, as MLflow's client sends it.
    door = http.client.HTTPConnection(*tensorflow.web, timeout=60)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    door.request("POST", f"{MLFLOW_PREFIX}/api/2.0/mlflow/experiments/search", json.dumps({"max_results": 9}), headers)
    answer = door.getresponse()
    found = json.loads(answer.read())
    assert answer.status == 200 and "admin/notebooks/compared" in [one["name"] for one in found["experiments"]]


def test_the_terminal_has_the_same(tensorflow: CommandLine, jobs: list[int]) -> None:
    words = [str(job) for job in jobs]
    told = tensorflow.run("jobs", "compare", *words).stdout
    assert max(map(len, told.splitlines()[:-1])) <= 80
    assert "opt_learning_rate" in told and "█" in told and "*" in told
    found = tensorflow.json("jobs", "compare", *words, "--metric", "loss")
    assert [row["values"] for row in found["differences"] if row["name"] == "opt_learning_rate"] == [
        ["0.01", "0.1", "1.0"]
    ]
    assert [len(curve) for curve in found["curves"]["loss"]] == [4, 4, 4]
    refused = tensorflow.run("jobs", "compare", words[0], check=False)
    assert refused.returncode == 2 and "2 to 20" in refused.stderr
    refused = tensorflow.run("jobs", "compare", *words, "--metric", "nonsense", check=False)
    assert refused.returncode == 2 and "accuracy" in refused.stderr
