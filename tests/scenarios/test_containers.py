"""People's tasks in containers: `runtime = "docker"`, then `ailab up`, on a real engine."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import UP_SECONDS, CommandLine, made_lab, reachable_folder
from engines import needs_engine, unique_name
from image_base import pin_base
from job_lines import ended
from web_door import web_door

from ailab import engine
from ailab.access import hub_client, kernel_client
from ailab.errors import AilabError
from ailab.settings_file import set_value
from ailab.waiting import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.lab, needs_engine]
MEMORY = 2**30
STATE_SECONDS = 30


@pytest.fixture(scope="module")
def lab(machine_home: Path) -> Iterator[CommandLine]:
    name = unique_name("container-test")
    with made_lab(machine_home, "science") as line:
        for section, key, value in (
            ("lab", "runtime", "docker"),
            ("lab", "name", name),
            ("resources", "memory", "1g"),
            ("resources", "cpus", 1),
            ("resources", "pids", 300),
        ):
            set_value(line.paths.settings, section, key, value)
        pin_base(line)
        yield line
    client = engine.connect()
    for image in client.images.list(name=f"ailab/{name}"):
        client.images.remove(image.id, force=True)


@pytest.fixture(scope="module")
def up(lab: CommandLine) -> Any:
    return lab.json("up", timeout=UP_SECONDS)


def workspace(lab: CommandLine, user: str) -> Any:
    return next(task for task in lab.json("status")["tasks"] if task["id"] == f"workspace-{user}")


def cell(lab: CommandLine, user: str, code: str) -> str:
    return kernel_client.run_cell(web_door(lab, user), code)


def in_engine(lab: CommandLine) -> list[dict[str, Any]]:
    """What the engine lists of the lab's own containers and networks; other labs may have some of the same names."""
    whose = hashlib.sha256(str(lab.paths.tasks.resolve()).encode()).hexdigest()[:12]
    api, own = engine.connect().api, {"label": f"org.ailab.tasks={whose}"}
    return [*api.containers(all=True, filters=own), *api.networks(filters=own)]


def inspected(lab: CommandLine, user: str) -> dict[str, Any]:
    containers = [one for one in in_engine(lab) if "Image" in one]
    (found,) = [one for one in containers if one["Labels"].get("org.ailab.task") == f"workspace-{user}"]
    seen: dict[str, Any] = engine.connect().api.inspect_container(found["Id"])
    return seen


def test_services_on_the_host_and_the_workspace_in_a_closed_container(lab: CommandLine, up: Any) -> None:
    user = up["login"]["user"]
    assert up["verified"]["ok"] and up["verified"]["environment"] == up["environment"]["id"]
    task = workspace(lab, user)
    assert task["limits"] == {"cpus": 1.0, "memory_bytes": MEMORY, "pids": 300, "shm_bytes": 2 * 2**30}
    seen = inspected(lab, user)
    host = seen["HostConfig"]
    assert host["CapDrop"] == ["ALL"] and host["ReadonlyRootfs"] and not host["Privileged"]
    assert seen["Config"]["User"].split(":")[0] not in ("", "0")
    sources = [mount["Source"] for mount in seen["Mounts"]]
    assert not [source for source in sources if source.endswith(".sock")]
    assert sorted(source for source in sources if "/run/" in source) == sorted(
        map(str, (lab.paths.hub_socket.parent, lab.paths.mlflow_socket.parent, lab.paths.workspace_socket(user).parent))
    )
    assert not [source for source in sources if source in (str(lab.paths.state), str(lab.paths.secrets))]
    assert not any(seen["NetworkSettings"]["Ports"].values()), "no port of this machine leads there"
    assert lab.paths.workspace_socket(user).is_socket()


def test_notebooks_are_the_labs_and_the_rest_is_the_persons_own(lab: CommandLine, up: Any) -> None:
    code = (
        "import os, getpass\nopen('notebooks/made', 'w').write('here')\nopen('mine', 'w').close()\n"
        "print(os.getcwd(), getpass.getuser(), os.path.exists('/lab/.ailab/secrets'), os.environ['OMP_NUM_THREADS'])\n"
        "try: os.unlink('/lab/.ailab/run/hub/hub.sock')\nexcept OSError as error: print(error.strerror)"
    )
    user = up["login"]["user"]
    assert cell(lab, user, code).split("\n")[:2] == [f"/lab {user} False 1", "Read-only file system"]
    assert (lab.lab / "notebooks/made").read_text() == "here"
    assert (lab.paths.workspaces / user / "mine").exists() and not (lab.lab / "mine").exists()


def test_a_notebook_asks_for_a_job_and_for_no_more_than_it_sees(lab: CommandLine, up: Any) -> None:
    user = up["login"]["user"]
    code = (
        "import os, ailab_jobs\nos.chdir('notebooks')\n"
        "words = ['python', '-c', 'import os; print(os.getcwd())']\n"
        "job = ailab_jobs.run(words, cpus=1, memory='512m', name='inside')\n"
        "print(job.wait(120).state, list(job.logs()))\n"
        "for place in ('/etc', '/lab', '../.ailab', '/lab/.ailab/run'):\n"
        "    try: ailab_jobs.run('true', cwd=place, cpus=1)\n"
        "    except ailab_jobs.JobsError as refused: print(refused.kind)\n"
        "try: ailab_jobs.run('true', inputs=['/etc/passwd'])\n"
        "except ailab_jobs.JobsError as refused: print(refused.kind)\n"
    )
    said = cell(lab, user, code).splitlines()
    assert said == ["done ['/lab/notebooks']", *["forbidden"] * 5], said
    (job,) = lab.json("jobs", "--name", "inside")["jobs"]
    assert job["owner"] == user
    hub_client.start_server(lab.paths, "neighbour")
    code = (
        f"import ailab_jobs\njob = ailab_jobs.get({job['id']})\nprint(job.state)\n"
        "for act in (lambda: list(job.logs()), job.stop, job.rerun):\n"
        "    try: act()\n    except ailab_jobs.JobsError as refused: print(refused.kind)\n"
    )
    assert cell(lab, "neighbour", code).split() == ["done", *["forbidden"] * 3]


def test_a_kernel_over_its_memory_is_killed_and_told_and_the_neighbour_goes_on(lab: CommandLine, up: Any) -> None:
    user = up["login"]["user"]
    hub_client.start_server(lab.paths, "neighbour")
    before = workspace(lab, "neighbour")
    status, kernel = web_door(lab, user).call("POST", "/api/kernels", {"name": "python3"})
    assert status == 201
    code = "import threading; threading.Timer(0.5, lambda: bytearray(b'1' * 1_500_000_000)).start()"
    kernel_client.execute(web_door(lab, user), kernel["id"], code)

    def told() -> str:
        return str(workspace(lab, user)["note"])

    note = wait_for(told, timeout=STATE_SECONDS, what="the note")
    assert "more memory than its limit of 1 GiB" in note and "[resources] memory" in note
    assert "more memory" in " ".join(lab.run("status").stdout.split())

    def written() -> list[Any]:
        """The daemon's next look, within a second, writes down what a question about the task is told at once."""
        return [event for event in lab.json("events") if event["detail"].get("reason") == "out-of-memory"]

    events = wait_for(written, timeout=STATE_SECONDS, what="the event")
    assert events[0]["subject"] == f"workspace-{user}" and "1 GiB" in events[0]["detail"]["note"]
    assert cell(lab, user, "print(41 + 1)").strip() == "42", "the workspace itself goes on"
    assert workspace(lab, "neighbour")["started_at"] == before["started_at"]


def test_two_people_cannot_reach_each_other(lab: CommandLine, up: Any) -> None:
    hub_client.start_server(lab.paths, "neighbour")
    network = next(iter(inspected(lab, "neighbour")["NetworkSettings"]["Networks"].values()))
    status, listens = web_door(lab, "neighbour").call("POST", "/api/kernels", {"name": "python3"})
    assert status == 201
    listen = "import socket; listener = socket.create_server(('', 0)); print(listener.getsockname()[1])"
    number = int(kernel_client.execute(web_door(lab, "neighbour"), listens["id"], listen))
    probe = (
        "import socket\nfor place in {places}:\n try: socket.create_connection(place, timeout=2); print('open')\n"
        " except OSError: print('closed')"
    )
    itself = probe.format(places=[(network["IPAddress"], number)])
    assert cell(lab, "neighbour", itself).strip() == "open", "the probe works"
    assert cell(lab, up["login"]["user"], itself).strip() == "closed"
    sockets = "import os; print(*os.listdir('/lab/.ailab/run/workspaces'))"
    assert cell(lab, up["login"]["user"], sockets).split() == [up["login"]["user"]], "its own socket alone is there"


def test_containers_outlive_the_daemon_and_are_taken_over(lab: CommandLine, up: Any) -> None:
    user = up["login"]["user"]
    before = workspace(lab, user)
    os.kill(int((lab.paths.run / "daemon.lock").read_text()), signal.SIGKILL)
    after = next(task for task in lab.up()["tasks"] if task["id"] == f"workspace-{user}")
    assert (after["pid"], after["attempt"], after["started_at"]) == (
        before["pid"], before["attempt"], before["started_at"]
    )  # fmt: skip


def test_a_container_that_ends_comes_back_at_the_same_socket(lab: CommandLine, up: Any) -> None:
    user = up["login"]["user"]
    before = workspace(lab, user)
    os.kill(before["pid"], signal.SIGKILL)

    def again() -> bool:
        task = workspace(lab, user)
        return bool(task["state"] == "running" and task["attempt"] > before["attempt"])

    wait_for(again, timeout=STATE_SECONDS, what="the next attempt")

    def computes() -> bool:
        try:
            return cell(lab, user, "print(41 + 1)").strip() == "42"
        except AilabError:
            return False

    wait_for(computes, timeout=STATE_SECONDS, what="a cell")


def test_the_doctor_may_ask_the_engine_too(lab: CommandLine, up: Any) -> None:
    checks = {check["name"]: check for check in json.loads(lab.run("doctor", "--json", check=False).stdout)["checks"]}
    assert [finding["severity"] for finding in checks["engine"]["findings"]] == ["ok"], checks["engine"]


def test_a_job_is_a_container_with_its_own_limits(lab: CommandLine, up: Any) -> None:
    hub_client.hub_call(lab.paths, "DELETE", "/users/neighbour/server")  # what it holds is more than is left
    folder = lab.lab / "notebooks"
    code = "import os, numpy, ailab_progress; print(os.getcwd(), numpy.__version__, os.path.exists('/.dockerenv'))"
    words = ("--follow", "--cwd", str(folder), "--cpus", "1")
    done = lab.run("run", *words, "--", "python", "-c", code, timeout=120)
    where, _version, contained = done.stdout.split()
    assert (where, contained) == ("/lab/notebooks", "True")
    greedy = "x = bytearray(2**30); x[::4096] = b'1' * len(x[::4096])"
    failed = lab.run("run", *words, "--memory", "256m", "--", "python", "-c", greedy, check=False, timeout=120)
    assert failed.returncode == 1 and "more memory than its limit" in failed.stderr, failed.stderr


def test_a_job_from_elsewhere_runs_on_its_snapshot(lab: CommandLine, up: Any) -> None:
    with reachable_folder() as folder:
        (folder / "hello.py").write_text("import os; print('hello', os.getcwd())")
        done = lab.run("run", "--follow", "--cwd", str(folder), "--cpus", "1", "--", "python", "hello.py", timeout=120)
    assert done.stdout.split()[0] == "hello" and len(done.stdout.splitlines()) == 1


MEET = """
import json, os, socket, time
told = json.loads(os.environ["TF_CONFIG"])
place, port = told["cluster"]["worker"][1].split(":")
if told["task"]["index"] == 1:
    listening = socket.create_server(("", int(port)))
    listening.accept()[0].sendall(b"hello from " + place.encode())
else:
    deadline = time.monotonic() + 30
    while True:
        try:
            print(socket.create_connection((place, int(port)), 5).recv(100).decode())
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
open(os.path.join(os.environ["AILAB_CHECKPOINTS"], os.environ["AILAB_WORKER"]), "w").close()
"""


def test_the_workers_of_a_job_meet_in_containers(lab: CommandLine, up: Any) -> None:
    for user in ("neighbour", up["login"]["user"]):  # on two CPUs there is no room beside a workspace
        hub_client.hub_call(lab.paths, "DELETE", f"/users/{user}/server")
    words = ("--workers", "2", "--strategy", "multiworker", "--cpus", "1", "--memory", "300m")
    done = lab.run("run", "--json", *words, "--cwd", str(lab.lab / "notebooks"), "--", "python", "-c", MEET)
    (job,) = json.loads(done.stdout)["jobs"]
    seen = ended(lab, job)
    said = lab.run("logs", str(job)).stdout
    assert seen["state"] == "done", f"{seen['note']}\n{said}"
    assert "[0] hello from 127.0.0.1" in said
    assert sorted(one.name for one in (lab.paths.jobs / str(job) / "checkpoints").iterdir()) == ["0", "1"]
    assert not [one for one in engine.connect().api.networks() if f"job-{job}-" in one["Name"]]
    assert not [one for one in in_engine(lab) if f"job-{job}-" in str(one)]


def test_down_leaves_nothing_in_the_engine(lab: CommandLine, up: Any) -> None:
    hub_client.start_server(lab.paths, up["login"]["user"])
    assert inspected(lab, up["login"]["user"])["State"]["Running"]
    lab.run("down")
    assert in_engine(lab) == []
    assert lab.json("status")["state"] == "stopped"


def test_no_engine_is_told_before_anything_is_started(lab: CommandLine, tmp_path: Path) -> None:
    lab.run("down")
    away = CommandLine(lab.lab, lab.environment | {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    refused = away.run("up", check=False)
    assert refused.returncode == 1 and "no container engine" in refused.stderr
    assert lab.json("status")["state"] == "stopped"
