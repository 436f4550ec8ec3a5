"""Jobs on a whole lab, by the command line: queued, followed, stopped, refused, and the daemon killed under them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CommandLine
from job_lines import ended, folder_of, submitted

from ailab import files
from ailab.waiting import wait_for

pytestmark = pytest.mark.lab
END_SECONDS = 120.0


@pytest.fixture(scope="module")
def lab(science: CommandLine) -> CommandLine:
    science.run("up", timeout=900)
    return science


@pytest.fixture
def folder(lab: CommandLine) -> Iterator[Path]:
    """A folder of the lab's, in which its account may write."""
    with folder_of(lab, "job") as made:
        yield made


def test_a_job_runs_in_the_environment_where_it_was_asked_for(lab: CommandLine, folder: Path) -> None:
    (folder / "train.py").write_text(
        "import os, sys, numpy\nprint(numpy.__version__, sys.prefix)\nprint(os.getcwd())\nprint(sys.argv[1:])\n"
    )
    done = lab.run("run", "--follow", "--cwd", str(folder), "--", "python", "train.py", "--batch_size", "64")
    version, where, arguments = done.stdout.splitlines()
    assert "generations" in version and where == str(folder) and arguments == "['--batch_size', '64']"
    assert "is done" in done.stderr


def test_who_follows_one_that_waits_is_told_for_what(lab: CommandLine, folder: Path) -> None:
    at = ("run", "--cwd", str(folder))
    lab.run(*at, "--", "sleep", "4")  # on all CPUs that are free
    said = lab.run(*at, "--follow", "--", "true").stderr
    assert "waits for CPUs. Who holds what:" in said


def test_a_failed_one_is_followed_by_a_failure(lab: CommandLine, folder: Path) -> None:
    refused = lab.run("run", "-f", "--cwd", str(folder), "--", "python", "-c", "raise SystemExit(3)", check=False)
    assert refused.returncode == 1 and "exit status 3" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cpus", "4096", "--", "true"), "this machine has"),
        (("--gpus", "64", "--", "true"), "GPU"),
        (("--timeout", "soon", "--", "true"), "--timeout:"),
        (("--after", "99999", "--", "true"), "99999"),
        (("--", "python", "missing.py"), "missing.py"),
        ((), "nothing to run"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(
    lab: CommandLine, folder: Path, words: tuple[str, ...], said: str
) -> None:
    refused = lab.run("run", "--cwd", str(folder), *words, check=False)
    assert refused.returncode == 2 and said in refused.stderr, refused.stderr


def test_the_list_and_one_of_it(lab: CommandLine, folder: Path) -> None:
    (job,) = submitted(lab, "--cwd", str(folder), "--env", "SECRET=hush", "--name", "listed", "--", "true")
    ended(lab, job)
    found = lab.json("jobs", "--name", "listed")
    assert [one["id"] for one in found["jobs"]] == [job] and found["counts"]["done"] >= 1
    assert "hush" not in lab.run("jobs", "show", str(job)).stdout + lab.run("jobs", "show", str(job), "--json").stdout
    text = lab.run("jobs").stdout
    assert "listed" in text and max(map(len, text.splitlines())) <= 80


def test_a_file_says_all_of_it(lab: CommandLine, folder: Path) -> None:
    (folder / "job.toml").write_text('command = ["python", "-c", "print(6 * 7)"]\nname = "filed"\ncpus = 1\n')
    done = lab.run("run", "--file", str(folder / "job.toml"), "--follow")
    assert done.stdout.split() == ["42"]
    (folder / "job.toml").write_text('command = ["true"]\ncpu = 1\n')
    refused = lab.run("run", "--file", str(folder / "job.toml"), check=False)
    assert refused.returncode == 2 and "job.toml: cpu" in refused.stderr, refused.stderr


def test_stopping_gives_time_to_save(lab: CommandLine, folder: Path) -> None:
    (folder / "train.py").write_text(
        "import signal, sys, time\n"
        "def save(*_):\n    print('saved', flush=True)\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save)\nprint('ready', flush=True)\ntime.sleep(600)\n"
    )
    (job,) = submitted(lab, "--cwd", str(folder), "--", "python", "train.py")
    wait_for(lambda: "ready" in lab.run("logs", str(job)).stdout, timeout=END_SECONDS, what="its first line")
    assert {lease["task"] for lease in lab.json("top")["leases"]} >= {f"job-{job}"}
    seen = lab.json("stop", str(job))[0]
    assert seen["state"] == "stopped" and lab.run("logs", str(job)).stdout.split() == ["ready", "saved"]
    assert [lease for lease in lab.json("top")["leases"] if lease["task"].startswith("job-")] == []


def test_a_job_outlives_the_daemon(lab: CommandLine, folder: Path) -> None:
    code = "import time; print('begun', flush=True); time.sleep(4); print('end')"
    (job,) = submitted(lab, "--cwd", str(folder), "--", "python", "-c", code)
    (waiting,) = submitted(lab, "--cwd", str(folder), "--after", str(job), "--", "python", "-c", "print('then')")
    wait_for(lambda: "begun" in lab.run("logs", str(job)).stdout, timeout=END_SECONDS, what="its first line")
    daemon = files.holder(lab.paths.run / "daemon.lock")
    assert daemon is not None
    os.kill(daemon, signal.SIGKILL)
    lab.run("up", timeout=300)
    assert ended(lab, job)["attempt"] == 1
    assert lab.run("logs", str(job)).stdout.split() == ["begun", "end"]
    assert ended(lab, waiting)["state"] == "done"


def test_an_array_has_its_numbers(lab: CommandLine, folder: Path) -> None:
    words = ("--array", "2-4", "--cwd", str(folder), "--cpus", "1", "--", "sh", "-c", "echo $AILAB_ARRAY_INDEX")
    made = submitted(lab, *words)
    for job in made:
        ended(lab, job)
    assert [lab.run("logs", str(job)).stdout.strip() for job in made] == ["2", "3", "4"]
