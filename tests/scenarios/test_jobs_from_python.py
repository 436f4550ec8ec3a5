"""Jobs from Python on a whole lab: in a notebook, by its magic, in a job, and in a script of who owns the lab."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CHECKOUT, CommandLine
from job_lines import ended, folder_of, submitted
from web_door import web_door

from ailab.access import hub_client, kernel_client
from ailab.client import jobs
from ailab.errors import AilabError, NotFound, UsageError
from ailab.jobs.progress import CLIENT_FOLDER

sys.path.insert(0, str(CLIENT_FOLDER))
import ailab_jobs
import ailab_magic

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab(science: CommandLine) -> CommandLine:
    science.run("up", timeout=900)
    hub_client.start_server(science.paths, user_of(science))
    return science


@pytest.fixture
def folder(lab: CommandLine) -> Iterator[Path]:
    """A folder of the lab's, in which its account may write."""
    with folder_of(lab, "python") as made:
        yield made


def user_of(lab: CommandLine) -> str:
    return str(lab.json("open")["user"])


def cell(lab: CommandLine, code: str) -> str:
    """What a cell prints in a fresh kernel of the person's workspace."""
    return kernel_client.run_cell(web_door(lab, user_of(lab)), code)


def test_in_a_notebook(lab: CommandLine, folder: Path) -> None:
    (folder / "train.py").write_text(
        "import os, sys, time, numpy\nprint('in', os.getcwd(), sys.argv[1:], os.environ['DATA'], flush=True)\n"
        "time.sleep(2)\nprint('end')\n"
    )
    code = (
        f"import os, ailab_jobs\nos.chdir('notebooks/{folder.name}')\n"
        "job = ailab_jobs.run('python train.py --epochs 3', cpus=1, name='by-notebook', env={'DATA': 'here'})\n"
        "print(job)\nprint(*job.logs(follow=True), sep='\\n')\nprint(job.wait(60, check=True).state)\n"
        "print([one.id == job.id for one in ailab_jobs.find(name='by-notebook')])\n"
        "then = ailab_jobs.run(['python', '-c', 'print(1)'], cpus=1, after=[job])\n"
        "print(then.wait(60).state, list(then.logs()), then.rerun().wait(60).state)\n"
    )
    said = cell(lab, code).splitlines()
    assert said[0].startswith("Job ") and "(by-notebook): " in said[0]
    assert said[1:3] == [f"in {folder} ['--epochs', '3'] here", "end"]
    assert said[3:] == ["done", "[True]", "done ['1'] done"]
    (found,) = lab.json("jobs", "--name", "by-notebook")["jobs"]
    assert found["owner"] == user_of(lab)


def test_what_is_stopped_and_what_cannot_be_meant(lab: CommandLine) -> None:
    code = (
        "import ailab_jobs, time\njob = ailab_jobs.run('sleep 600', cpus=1, cwd='notebooks', grace='2s')\n"
        "while job.look().state != 'running': time.sleep(0.1)\n"
        "print(job.stop().wait(60).state)\n"
        "for options in ({'gpus': 64}, {'timeout': 'soon'}, {'cwd': 'nowhere'}):\n"
        "    try: ailab_jobs.run('true', **options)\n"
        "    except ailab_jobs.JobsError as refused: print(refused.kind, refused)\n"
    )
    said = cell(lab, code).splitlines()
    assert said[0] == "stopped" and [line.split()[0] for line in said[1:]] == ["usage"] * 3
    assert "GPU" in said[1] and said[2].startswith("usage timeout: a time is written") and "nowhere" in said[3]


def test_a_cell_as_a_job_by_its_magic(lab: CommandLine) -> None:
    """Nobody has loaded it: the lab's kernels have it as they start."""
    said = cell(lab, "%%ailab_job --cpus 1 --name of-a-cell --follow\nimport numpy\nprint(numpy.ones(6).sum() * 7)")
    assert said.split() == ["42.0"]
    said = cell(
        lab, "job = %ailab_job --cpus 1 --name of-a-line -- python -c 'print(6 * 7)'\nprint(job.wait(60).state)"
    )
    assert said.split() == ["done"]
    with pytest.raises(AilabError) as refused:
        cell(lab, "%%ailab_job --cpu 1\nprint(1)")
    assert "A job takes no --cpu." in refused.value.detail and "Traceback" not in refused.value.detail


def test_a_job_asks_for_another(lab: CommandLine, folder: Path) -> None:
    code = "import ailab_jobs; print(ailab_jobs.run('echo second', cpus=1, name='of-a-job').wait(60).state)"
    (job,) = submitted(lab, "--cwd", str(folder), "--cpus", "1", "--", "python", "-c", code)
    assert ended(lab, job)["state"] == "done"
    assert lab.run("logs", str(job)).stdout.split() == ["done"]
    (found,) = lab.json("jobs", "--name", "of-a-job")["jobs"]
    assert found["owner"] == ended(lab, job)["owner"] and found["cwd"] == str(folder)


def test_what_the_guide_shows(lab: CommandLine) -> None:
    page = (CHECKOUT / "docs/how-to/jobs-from-python.md").read_text(encoding="utf-8")
    script = lab.lab / "notebooks/train.py"
    script.write_text("import os, sys\nprint(sys.argv[1:], os.environ['DATA'])\n")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert cell(lab, code).splitlines() == ["['--epochs', '3'] small", "done"]
    magic = re.search(r"    (%%ailab_job .*)\n", page)
    assert magic is not None
    wish, words = ailab_magic.parse(magic[1].partition(" ")[2])
    assert wish == {"gpus": "1", "memory": "8g"} and not words
    for call in re.findall(r"^\| `(\w+)\(", page, re.MULTILINE):
        assert callable(getattr(ailab_jobs, call))
    for name in set(re.findall(r"`job\.(\w+)", page)):
        assert hasattr(ailab_jobs.Job, name) or name == "info", name


def test_by_a_script_of_the_owner(lab: CommandLine, folder: Path) -> None:
    of_lab = jobs(lab.lab, user="li")
    made = of_lab.run_array("sh -c 'echo $AILAB_ARRAY_INDEX'", "4-5", cwd=str(folder), cpus=1)
    assert [list(job.wait(60).logs()) for job in made] == [["4"], ["5"]]
    assert {job.info["owner"] for job in made} == {"li"}
    with pytest.raises(NotFound):
        of_lab.get(999_999)
    with pytest.raises(UsageError, match=r"^memory: .*"):
        of_lab.run("true", memory="much", cwd=str(folder))
