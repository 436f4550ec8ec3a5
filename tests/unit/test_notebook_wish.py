"""Which notebooks JupyterLab may have run as jobs, and which folders a job in a container is given."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from ailab.asking import notebook_wish
from ailab.daemon.app import answer_errors
from ailab.errors import Forbidden, NotFound, UsageError
from ailab.jobs.model import JobRequest
from ailab.lab import Lab
from ailab.portal.job_routes import add_notebook_jobs
from ailab.portal.login import Session
from ailab.portal.once import Once
from ailab.runtimes.base import Site, TaskKind, TaskSpec
from ailab.working import _as_notebook, _seen_there, refuse_impossible


class OfJob:
    """What of a job its folders depend on."""

    id = 3
    name = "train"
    request = JobRequest(command=("train.ipynb",), cwd="/")


JOB: Any = OfJob()


def lab(folder: Path, runtime: str) -> Lab:
    root = folder / "lab"
    for name in ("notebooks", ".ailab/jobs/3/code", ".ailab/secrets", ".ailab/workspaces/ann"):
        (root / name).mkdir(parents=True)
    (folder / "data").mkdir()
    for notebook in (root / "notebooks/a.ipynb", root / "top.ipynb", folder / "data/d.ipynb", folder / "outside.ipynb"):
        notebook.touch()
    (root / "notebooks/out").symlink_to(folder)
    (root / "notebooks/state").symlink_to(root / ".ailab/secrets")
    (root / "notebooks/a.txt").touch()
    (root / "lab.toml").write_text(f'[lab]\nruntime = "{runtime}"\n[mounts]\ndata = "{folder / "data"}"\n')
    return Lab.open(root)


def test_a_notebook_of_a_shared_folder(tmp_path: Path) -> None:
    for runtime in ("process", "docker"):
        (tmp_path / runtime).mkdir()
        made = lab(tmp_path / runtime, runtime)
        wish = notebook_wish(made, "notebooks/a.ipynb", ["-p", "epochs", "3"], 1)
        assert (wish.command, wish.cwd) == (["a.ipynb", "-p", "epochs", "3"], str(made.paths.root / "notebooks"))
        assert wish.gpus == 1 and wish.title() == "a"
        assert notebook_wish(made, "data/d.ipynb", [], 0).cwd == str(tmp_path / runtime / "data")
        refuse_impossible(made.paths, wish.cwd, tuple(wish.command))


@pytest.mark.parametrize(
    "path", ["", "/etc/a.ipynb", "../outside.ipynb", "notebooks/none.ipynb", "notebooks/a.txt", "notebooks"]
)
def test_no_notebook(tmp_path: Path, path: str) -> None:
    for runtime in ("process", "docker"):
        (tmp_path / runtime).mkdir()
        with pytest.raises(NotFound):
            notebook_wish(lab(tmp_path / runtime, runtime), path, [], 0)


def test_where_workspaces_are_containers_only_what_they_share(tmp_path: Path) -> None:
    made = lab(tmp_path, "docker")
    for path in ("top.ipynb", "notebooks/out/outside.ipynb"):
        with pytest.raises(Forbidden):
            notebook_wish(made, path, [], 0)


def test_a_container_is_given_no_folder_that_a_link_leads_to(tmp_path: Path) -> None:
    made = lab(tmp_path, "docker")
    root = made.paths.root
    site = made.runtime.site(TaskKind.job, made.paths)
    assert _seen_there(made, site, JOB, root / "notebooks") == (str(site.lab.root / "notebooks"), ())
    assert _seen_there(made, site, JOB, root / ".ailab/jobs/3/code") == (str(site.lab.jobs / "3/code"), ())
    for folder in ("notebooks/out", "notebooks/state", ".ailab/secrets", ".ailab/workspaces/ann"):
        with pytest.raises(Forbidden):
            _seen_there(made, site, JOB, root / folder)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    _there, (mount,) = _seen_there(made, site, JOB, elsewhere)
    assert mount.source == str(elsewhere) and not mount.read_only


def test_only_a_command_that_begins_with_a_notebook_becomes_its_run(tmp_path: Path) -> None:
    made = lab(tmp_path, "process")
    site: Site = made.runtime.site(TaskKind.job, made.paths)
    spec = TaskSpec("job-3", "train", "job", ("train.ipynb", "-p", "rate", "1"), {}, str(tmp_path))
    run = _as_notebook(spec, JOB, site, Path("/env/bin/python"), tmp_path)
    assert run.command[0] == site.python and f"--output={tmp_path}/train-job-3.ipynb" in run.command
    assert any('"/env/bin/python", "-m", "ipykernel_launcher"' in word for word in run.command)
    plain = TaskSpec("job-3", "train", "job", ("python", "train.py"), {}, str(tmp_path))
    assert _as_notebook(plain, JOB, site, Path("/env/bin/python"), tmp_path) is plain


class Portal:
    """The daemon's side, and a login."""

    asked: Any = None
    jobs = 6

    def run_notebook(self, *asked: Any) -> dict[str, Any]:
        self.asked = asked
        self.jobs += 1
        return {"job": self.jobs, "output": f"notebooks/a-job-{self.jobs}.ipynb"}

    async def session(self, request: Request) -> Session | None:
        return Session("", request.headers.get("who", "ann"), "", 0, 0) if "ailab-session" in request.cookies else None


def served(portal: Any) -> FastAPI:
    app = FastAPI()
    app.state.logins = portal
    add_notebook_jobs(app, portal)
    answer_errors(app)
    return app


def test_the_portal_takes_it_from_its_own_pages_alone() -> None:
    portal: Any = Portal()
    app = served(portal)
    path, asked = "/services/ailab/api/notebook-jobs", {"path": "notebooks/a.ipynb", "words": ["-p", "rate", "1"]}
    here, login = {"sec-fetch-site": "same-origin"}, {"cookie": "ailab-session=x"}
    with TestClient(app) as client:
        assert client.post(path, json=asked, headers=here).status_code == 401
        assert client.post(path, json=asked, headers=login | {"sec-fetch-site": "same-site"}).status_code == 403
        assert client.post(path, content="{}", headers=login | here).status_code == 400
        assert portal.asked is None
        assert client.post(path, json=asked, headers=login | here).json()["job"] == 7
    assert portal.asked == ("ann", "notebooks/a.ipynb", ["-p", "rate", "1"], 0)


def test_asked_again_with_its_key_it_is_the_same_job() -> None:
    portal: Any = Portal()
    app = served(portal)
    login = {"cookie": "ailab-session=x", "sec-fetch-site": "same-origin"}

    def job(client: TestClient, key: str, who: str = "ann") -> int:
        asked = {"path": "notebooks/a.ipynb", "key": key}
        answer = client.post("/services/ailab/api/notebook-jobs", json=asked, headers=login | {"who": who})
        return int(answer.json()["job"])

    with TestClient(app) as client:
        assert [job(client, "k1"), job(client, "k1"), job(client, "k2"), job(client, "k1")] == [7, 7, 8, 7]
        assert job(client, "k1", "bob") == 9
        assert [job(client, ""), job(client, "")] == [10, 11]


def test_a_refusal_is_not_kept_and_who_goes_takes_nobody_along() -> None:
    async def everything() -> None:
        once, begun, go_on = Once(), [0], asyncio.Event()

        async def fails() -> int:
            begun[0] += 1
            raise UsageError("No.")

        async def slow() -> int:
            begun[0] += 1
            await go_on.wait()
            return begun[0]

        for _time in range(2):
            with pytest.raises(UsageError):
                await once.do("ann", "refused", fails)
        assert begun == [2]
        first = asyncio.ensure_future(once.do("ann", "slow", slow))
        await asyncio.sleep(0)
        first.cancel()
        second = asyncio.ensure_future(once.do("ann", "slow", slow))
        await asyncio.sleep(0)
        go_on.set()
        assert await second == 3 and begun == [3]

    asyncio.run(everything())
