"""What a job's Python does by itself: notices a fit, writes it down, and is never in its way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ailab.jobs.progress import CLIENT_FOLDER

# As much of Keras as a fit is made of: callbacks that are told of epochs.
TRAINING = """
from keras.callbacks import CallbackList

class Model:
    name, loss = "small", "mse"
    class optimizer:
        @staticmethod
        def get_config():
            return {"learning_rate": 0.5, "schedule": {}}
    def count_params(self):
        return 5
    def fit(self, x=None, y=None, batch_size=None, epochs=1, callbacks=None, initial_epoch=0):
        \"\"\"Trains.\"\"\"
        if not isinstance(callbacks, CallbackList):
            callbacks = CallbackList(callbacks or [], self, {"epochs": epochs, "steps": 1})
        for epoch in range(initial_epoch, epochs):
            if x == "break":
                raise ValueError("no data")
            for one in callbacks.callbacks:
                one.on_epoch_begin(epoch)
                one.on_train_batch_end(0, {"loss": 1.0})
                one.on_epoch_end(epoch, {"loss": 1 / (epoch + 1), "bad": object(), "nan": float("nan")})
        return [type(one).__name__ for one in callbacks.callbacks]
"""
CALLBACKS = """
class Callback:
    params = model = None
    def set_params(self, params): self.params = params
    def set_model(self, model): self.model = model
    def on_epoch_begin(self, epoch, logs=None): pass
    def on_train_batch_end(self, batch, logs=None): pass
    def on_epoch_end(self, epoch, logs=None): pass

class CallbackList:
    def __init__(self, callbacks, model, params):
        self.callbacks, self.model, self.params = list(callbacks), model, params
        for one in callbacks:
            one.set_model(model)
            one.set_params(params)
    def append(self, one): self.callbacks.append(one)
"""
BEGIN = (
    "import keras\nfrom keras.src.engine.training import Model\nfrom keras.callbacks import Callback, CallbackList\n"
)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    for name, text in {
        "keras/__init__.py": "from keras import callbacks\n",
        "keras/callbacks.py": CALLBACKS,
        "keras/src/__init__.py": "",
        "keras/src/engine/__init__.py": "",
        "keras/src/engine/training.py": TRAINING,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def run(site: Path, code: str, **variables: str) -> str:
    path = os.pathsep.join([str(CLIENT_FOLDER), str(site)])
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path, **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, cwd=site
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def told(path: Path) -> list[dict[str, Any]]:
    return [json.loads(each) for each in path.read_text().splitlines()]


def test_a_jobs_fits_are_written_down_and_its_progress_is_shown(site: Path, tmp_path: Path) -> None:
    training, progress = tmp_path / "training.jsonl", tmp_path / "progress.jsonl"
    code = BEGIN + "print(Model().fit([1], batch_size=4, epochs=2), Model.fit.__doc__)\nModel().fit(epochs=3)\n"
    assert (
        run(site, code, AILAB_TRAINING=str(training), AILAB_PROGRESS=str(progress)) == "['Progress', 'Noticed'] Trains."
    )
    lines = told(training)
    expected = {"batch_size": "4", "epochs": "2", "opt_learning_rate": "0.5", "loss": "mse", "model_parameters": "5"}
    assert expected.items() <= lines[0]["params"].items()
    # A second fit goes on in the curve.
    assert [each["epoch"] for each in lines if "epoch" in each] == [1, 2, 3, 4, 5]
    assert lines[1]["metrics"] == {"loss": 1.0, "nan": "NaN"}
    assert told(progress)[-1]["epochs"] == 3


def test_a_fit_that_goes_on_counts_from_where_it_was(site: Path, tmp_path: Path) -> None:
    training = tmp_path / "training.jsonl"
    code = BEGIN + "Model().fit(epochs=2)\nprint(Model().fit(epochs=4, initial_epoch=2))"
    assert run(site, code, AILAB_TRAINING=str(training)) == "['Noticed']"
    assert [each["epoch"] for each in told(training) if "epoch" in each] == [1, 2, 3, 4]


def test_the_persons_own_callbacks_stay_and_progress_is_not_shown_twice(site: Path, tmp_path: Path) -> None:
    training, progress = tmp_path / "training.jsonl", tmp_path / "progress.jsonl"
    code = BEGIN + (
        "import ailab_progress\n"
        "class Mine(Callback): pass\n"
        "mine = [Mine(), ailab_progress.keras()]\n"
        "model = Model()\n"
        "print(model.fit(None, None, None, 1, mine), len(mine), model.fit(callbacks=Mine()),\n"
        "      model.fit(callbacks=CallbackList([Mine()], model, {})), model.fit(callbacks=(Mine(),)))\n"
    )
    out = run(site, code, AILAB_TRAINING=str(training), AILAB_PROGRESS=str(progress))
    others = "['Mine', 'Progress', 'Noticed']"
    assert out == f"['Mine', 'Progress', 'Noticed'] 2 {others} {others} {others}"


def test_a_notebooks_fit_has_a_file_of_its_own_that_says_how_it_ended(site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "trainings"
    code = (
        BEGIN + "Model().fit(epochs=1)\ntry:\n    Model().fit('break')\nexcept ValueError as error:\n    print(error)"
    )
    variables = {
        "AILAB_TRAININGS": str(folder),
        "JUPYTERHUB_USER": "ada",
        "JPY_SESSION_NAME": "/lab/notebooks/mnist.ipynb",
    }
    assert run(site, code, **variables) == "no data"
    found = sorted((told(path) for path in folder.iterdir()), key=lambda lines: lines[0]["training"]["name"])
    assert [lines[0]["training"]["name"] for lines in found] == ["mnist #1", "mnist #2"]
    assert [lines[-1]["ended"] for lines in found] == ["done", "failed"]
    assert found[0][0]["training"]["user"] == "ada" and folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "variables",
    [
        {"AILAB_AUTOLOG": "0"},
        {"HOROVOD_RANK": "1"},
        {"TF_CONFIG": json.dumps({"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 1}})},
        {
            "TF_CONFIG": json.dumps(
                {"cluster": {"chief": ["a"], "worker": ["b"]}, "task": {"type": "worker", "index": 0}}
            )
        },
        {"AILAB_TRAINING": "/no/such/folder/training.jsonl"},
        {"AILAB_TRAINING": ""},
    ],
)
def test_who_does_not_report_trains_all_the_same(site: Path, tmp_path: Path, variables: dict[str, str]) -> None:
    training = tmp_path / "training.jsonl"
    assert run(site, BEGIN + "print(Model().fit())", **{"AILAB_TRAINING": str(training), **variables}) == "[]"
    assert not training.exists()


def test_the_first_of_a_group_reports(site: Path, tmp_path: Path) -> None:
    config = json.dumps({"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 0}})
    out = run(site, BEGIN + "print(Model().fit())", AILAB_TRAINING=str(tmp_path / "t"), TF_CONFIG=config)
    assert out == "['Noticed']"


def test_a_full_disk_and_a_broken_client_cost_the_training_nothing(site: Path) -> None:
    assert run(site, BEGIN + "print(Model().fit())", AILAB_TRAINING="/dev/full") == "['Noticed']"
    (site / "sabotage.py").write_text("import sys\nsys.modules['ailab_trainings'] = None\n")
    assert run(site, "import sabotage\n" + BEGIN + "print(Model().fit())", AILAB_TRAINING="/dev/null") == "[]"


def test_a_sitecustomize_of_the_environment_still_runs_and_nothing_is_imported_for_ours(site: Path) -> None:
    (site / "sitecustomize.py").write_text("import builtins\nbuiltins.theirs = 42\n")
    code = "import sys; print(theirs, [name for name in ('json', 'socket', 'ailab_trainings') if name in sys.modules])"
    assert run(site, code, AILAB_TRAINING="/dev/null", AILAB_MLFLOW="/nowhere") == "42 []"


@pytest.mark.parametrize(
    ("before", "expected"), [("", "False True"), ("gc.disable()", "False False")], ids=["usual", "who looks never"]
)
def test_a_large_framework_is_loaded_without_looking_for_garbage(site: Path, before: str, expected: str) -> None:
    (site / "torch.py").write_text("import gc\nlooked = gc.isenabled()\n")
    assert run(site, f"import gc\n{before}\nimport torch\nprint(torch.looked, gc.isenabled())") == expected


def test_garbage_is_looked_for_again_after_a_framework_that_does_not_load(site: Path) -> None:
    (site / "torch.py").write_text("raise ImportError('no CUDA')\n")
    code = "import gc\ntry: import torch\nexcept ImportError as error: print(error, gc.isenabled())"
    assert run(site, code) == "no CUDA True"
