"""What listens is what the documentation says: no port more, no address wider, while there is work of each kind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import CommandLine
from job_lines import folder_of
from listeners import Listener, listeners, reached_by_a_stranger, undocumented, who
from rooms import kernel, processes_of

from ailab.waiting import wait_for

pytestmark = pytest.mark.lab
# As TensorFlow's servers do it, at once.
WORKER = """
import json, os, socket
config = json.loads(os.environ["TF_CONFIG"])
place = config["cluster"][config["task"]["type"]][config["task"]["index"]]
server = socket.create_server(("", int(place.rpartition(":")[2])))
print("up", flush=True)
while True:
    server.accept()
"""


@contextmanager
def gang(lab: CommandLine, *options: str) -> Iterator[tuple[int, str]]:
    """A job of two workers, each of which listens: its number, and what `ailab run` said before it started."""
    with folder_of(lab, "listeners") as folder:
        (folder / "worker.py").write_text(WORKER)
        words = ("--cwd", str(folder), "--workers", "2", "--strategy", "multiworker", "--cpus", "1", "--grace", "1s")
        done = lab.run("run", *words, *options, "--", "python", "worker.py")
        job = int(re.findall(r"\d+", done.stdout)[0])
        try:
            yield up(lab, job), done.stderr
        finally:
            lab.run("stop", str(job), check=False)


def up(lab: CommandLine, job: int) -> int:
    def both() -> bool:
        return lab.run("logs", str(job), check=False).stdout.count("] up") == 2

    wait_for(both, timeout=60, what=f"the workers of job {job} to listen")
    return job


def ports_of(job: int, found: list[Listener]) -> dict[int, bool]:
    """The ports of a job's workers, and whether they are in this machine's network."""
    mark = f"job-{job}-"
    return {one.port: one.here for one in found if one.task.startswith(mark)}


def test_with_a_notebook_and_a_gang_only_what_is_documented_listens(science: CommandLine) -> None:
    kernel(science, science.up()["login"]["user"])
    with gang(science) as (job, told):
        assert "private network" in told and "--insecure-ports" in told
        assert "private" in science.run("jobs", "show", str(job)).stdout
        found = listeners(processes_of(science))
        assert undocumented(science, found) == []
        assert {"proxy", "kernel", "gang"} <= {who(one, False) for one in found}
        ports = ports_of(job, found)
        assert len(ports) == 2 and not any(ports.values())
        assert reached_by_a_stranger([*ports, science.web[1]]) == {science.web[1]}


def test_insecure_ports_are_open_and_stay_so_in_a_rerun(science: CommandLine) -> None:
    with gang(science, "--insecure-ports") as (job, told):
        assert "without a login" in told
        found = listeners(processes_of(science))
        assert undocumented(science, found, open_ports=True) == []
        ports = ports_of(job, found)
        assert len(ports) == 2 and all(ports.values()) and reached_by_a_stranger(ports) == set(ports)
    again = json.loads(science.run("rerun", str(job), "--json").stdout)
    assert again["network"] == "open"
    science.run("stop", str(again["jobs"][0]))
