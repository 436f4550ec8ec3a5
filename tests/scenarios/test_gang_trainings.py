"""Trainings on two workers, with TensorFlow: each strategy's example, and a worker that is killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import CHECKOUT, CommandLine
from job_lines import END_SECONDS, ended, submitted

from ailab.runtimes.process import ProcessRuntime
from ailab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.tensorflow]


@pytest.fixture
def folder(tensorflow: CommandLine) -> Iterator[Path]:
    """A folder of the lab's with the examples in it."""
    tensorflow.run("up", timeout=900)
    made = tensorflow.lab / "notebooks" / "gangs"
    made.mkdir()
    for example in (CHECKOUT / "examples").glob("*.py"):
        shutil.copy(example, made)
    owner = tensorflow.lab.stat()
    for path in (made, *made.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid)
    yield made
    shutil.rmtree(made)


def submit(lab: CommandLine, folder: Path, strategy: str, *options: str, epochs: int = 2) -> int:
    words = ("--cwd", str(folder), "--workers", "2", "--strategy", strategy, "--cpus", "1", *options)
    command = ("--", "python", f"train_{strategy}.py", "--epochs", str(epochs), "--pictures", "512")
    (job,) = submitted(lab, *words, *command)
    return job


def done(lab: CommandLine, job: int) -> tuple[Any, str]:
    """The job, and all that its members have put out."""
    seen, said = ended(lab, job), lab.run("logs", str(job)).stdout
    assert seen["state"] == "done", f"{seen['note']}\n{said}"
    assert not [lease for lease in lab.json("top")["leases"] if lease["task"].startswith("job-")]
    return seen, said


def test_workers_of_collectives_end_with_equal_weights(tensorflow: CommandLine, folder: Path) -> None:
    job = submit(tensorflow, folder, "multiworker")
    seen, said = done(tensorflow, job)
    weights = dict(re.findall(r"^\[(\d)\] replicas 2 weights (\w+)$", said, re.MULTILINE))
    assert weights.keys() == {"0", "1"} and len(set(weights.values())) == 1, said
    assert seen["progress"]["fraction"] == 1.0 and [one["name"] for one in seen["members"]] == ["worker 0", "worker 1"]
    # Not its last line: TensorFlow's pools may tell on the way out that nothing is there any more to tell of their end.
    assert tensorflow.run("logs", f"{job}.1").stdout.count(f"replicas 2 weights {weights['1']}") == 1
    assert "worker 1" in tensorflow.run("jobs", "show", str(job)).stdout


def test_one_process_has_as_many_devices(tensorflow: CommandLine, folder: Path) -> None:
    seen, said = done(tensorflow, submit(tensorflow, folder, "mirrored"))
    assert "replicas 2" in said and [one["task"] for one in seen["members"]] == [f"job-{seen['id']}"]


def test_a_chief_a_server_and_workers_end_with_the_chief(tensorflow: CommandLine, folder: Path) -> None:
    seen, said = done(tensorflow, submit(tensorflow, folder, "ps"))
    assert [one["name"] for one in seen["members"]] == ["chief", "worker 0", "worker 1", "ps 0"]
    assert re.search(r"^\[0\] loss \S+ accuracy", said, re.MULTILINE)


def test_a_worker_that_is_killed_takes_all_along_and_all_go_on(tensorflow: CommandLine, folder: Path) -> None:
    job = submit(tensorflow, folder, "multiworker", "--retries", "1", epochs=6)
    checkpoints = tensorflow.paths.jobs / str(job) / "checkpoints"
    wait_for(lambda: list(checkpoints.glob("epoch-000002*")), timeout=END_SECONDS, what="a checkpoint", last=0.02)
    pid = ProcessRuntime(tensorflow.paths.tasks).poll(f"job-{job}-1").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    seen, said = done(tensorflow, job)
    assert seen["attempt"] == 2 and seen["failures"] == 1
    went_on = re.findall(r"^\[(\d)\] goes on after epoch (\d)$", said, re.MULTILINE)
    assert {number for number, _epoch in went_on} == {"0", "1"} and len({epoch for _number, epoch in went_on}) == 1
    weights = re.findall(r"^\[\d\] replicas 2 weights (\w+)$", said, re.MULTILINE)
    assert len(weights) == 2 and len(set(weights)) == 1
    events = tensorflow.json("events")
    assert "worker 1" in str([one for one in events if one["subject"] == f"job-{job}" and one["after"] == "queued"])


def test_horovod_that_is_not_there_is_refused_at_once(tensorflow: CommandLine, folder: Path) -> None:
    words = ("--workers", "2", "--strategy", "horovod", "--cwd", str(folder), "--", "python", "train_horovod.py")
    refused = tensorflow.run("run", *words, check=False)
    assert refused.returncode == 2 and "env add horovod" in refused.stderr


@pytest.mark.skipif("AILAB_CHECK_HOROVOD" not in os.environ, reason="builds for minutes; AILAB_CHECK_HOROVOD=1 does it")
def test_workers_of_horovod_end_with_equal_weights(tensorflow: CommandLine, folder: Path) -> None:
    tensorflow.run("env", "add", "horovod", timeout=1800)
    try:
        _seen, said = done(tensorflow, submit(tensorflow, folder, "horovod"))
        weights = re.findall(r"^\[\d\] ranks 2 weights (\w+)$", said, re.MULTILINE)
        assert len(weights) == 2 and len(set(weights)) == 1, said
    finally:
        tensorflow.run("env", "remove", "horovod", timeout=900)
