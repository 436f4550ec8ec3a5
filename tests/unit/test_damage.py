"""A damaged database or secret is named, with what to do, and never taken for a new one."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from patients import a_lab, as_nobody, facts_of
from sqlalchemy import text

from ailab import bringup, store_file
from ailab.access import secret_files
from ailab.daemon.app import answer_errors
from ailab.daemon.disk_answers import name_full_disks
from ailab.daemon.status import stopped_status
from ailab.doctor.findings import Severity
from ailab.doctor.lab import databases
from ailab.errors import AilabError
from ailab.lab import Lab
from ailab.paths import LabPaths, MachinePaths
from ailab.settings import Settings
from ailab.shutdown import stop_mark
from ailab.store import Store


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    paths = a_lab(tmp_path / "lab")
    store = Store(paths.database).open()
    with store.engine.begin() as connection:
        connection.execute(text("CREATE TABLE filler AS SELECT randomblob(100000) AS x"))
    store.engine.dispose()
    return Lab(paths, MachinePaths(tmp_path / "machine"), Settings())


def zeroed(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


def cut_off(path: Path) -> None:
    os.truncate(path, 20480)


def holed(path: Path) -> None:
    """Its header is whole, and a page in its middle is not."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(8192))


def replaced(path: Path) -> None:
    """A database, but none of ours."""
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE x (y)")


def lost(path: Path) -> None:
    path.with_name("lab.db-wal").write_bytes(b"x" * 4096)
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


KINDS = [zeroed, garbage, cut_off, holed, replaced, lost, a_folder]


@pytest.mark.parametrize("damage", KINDS, ids=lambda damage: damage.__name__)
def test_a_damaged_database_is_refused_and_left_as_it_is(lab: Lab, tmp_path: Path, damage: object) -> None:
    path = lab.paths.database
    damage(path)  # type: ignore[operator]
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(store_file.DamagedStore) as refused:
        Store(path).open()
    assert str(path) in refused.value.message and f"mv {path}*" in refused.value.remedy
    # `up` itself says so, not a log; `status` and `doctor` know of it.
    with pytest.raises(store_file.DamagedStore):
        bringup.ensure_daemon(lab, stop_mark(lab.paths))
    found = list(databases(facts_of(tmp_path, lab.paths)))
    assert [finding.severity for finding in found] == [Severity.error] and str(path) in found[0].message
    if damage not in (holed, replaced):
        assert str(path) in stopped_status(lab)["note"]
    assert (path.read_bytes() if path.is_file() else None) == before
    # What the remedy says works.
    assert os.system(refused.value.remedy.partition("empty one: ")[2].partition(";")[0]) == 0
    Store(path).open()
    assert store_file.look_closely(path) == ""


def test_a_whole_one_is_opened_also_beside_its_log(lab: Lab, tmp_path: Path) -> None:
    store = Store(lab.paths.database).open()
    with store.engine.begin() as connection:
        connection.execute(text("CREATE TABLE more AS SELECT randomblob(300000) AS x"))
    assert lab.paths.database.with_name("lab.db-wal").stat().st_size
    Store(lab.paths.database).open()
    assert [finding.severity for finding in databases(facts_of(tmp_path, lab.paths))] == [Severity.ok]


def test_one_that_was_never_finished_is_made_again(tmp_path: Path) -> None:
    """Its maker was killed, or its disk was full."""
    for name in ("lab.db.new", "lab.db.new-journal"):
        (tmp_path / name).write_bytes(b"")
    Store(tmp_path / "lab.db").open()
    assert [path.name for path in tmp_path.glob("lab.db.new*")] == []
    assert (tmp_path / "lab.db").stat().st_mode & 0o777 == 0o600


def test_one_that_this_account_may_not_read_is_named(lab: Lab) -> None:
    for folder in (lab.paths.root, lab.paths.state):
        folder.chmod(0o755)
    for above in list(lab.paths.root.parents)[:-2]:
        above.chmod(above.stat().st_mode | 0o011)
    assert "may not read" in as_nobody(lambda: store_file.look(lab.paths.database))


def test_damage_to_an_open_one_is_named_by_the_api(lab: Lab) -> None:
    app, store = FastAPI(), Store(lab.paths.database).open()
    answer_errors(app)
    name_full_disks(app, lab)

    @app.get("/read")
    def read() -> None:
        with store.engine.connect() as connection:
            connection.execute(text("SELECT * FROM filler")).all()

    client = TestClient(app, raise_server_exceptions=False)
    assert client.get("/read").status_code == 200
    store.engine.dispose()
    garbage(lab.paths.database)
    assert client.get("/read").json()["error"]["kind"] == "damaged-store"


def test_the_hubs_own_is_named_too(lab: Lab, tmp_path: Path) -> None:
    garbage(lab.paths.hub_database)
    with pytest.raises(store_file.DamagedStore, match="JupyterHub"):
        bringup.ensure_daemon(lab, stop_mark(lab.paths))
    assert [finding.severity for finding in databases(facts_of(tmp_path, lab.paths))] == [Severity.error]


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"0123"])
def test_a_damaged_secret_is_never_used(lab: Lab, tmp_path: Path, content: bytes) -> None:
    good = secret_files.secret(lab.paths, "proxy-token")
    assert secret_files.secret(lab.paths, "proxy-token") == good and len(good) == 64
    file = lab.paths.secrets / "proxy-token"
    file.write_bytes(content)
    with pytest.raises(AilabError, match="holds no secret"):
        secret_files.secret(lab.paths, "proxy-token")
    if not content:
        assert [finding.severity for finding in databases(facts_of(tmp_path, lab.paths))] == [Severity.error]
    made = secret_files.renewed(lab.paths, "proxy-token")
    assert made not in ("", good) and secret_files.secret(lab.paths, "proxy-token") == made
    assert file.stat().st_mode & 0o777 == 0o600 and [path.name for path in lab.paths.secrets.iterdir()] == [file.name]


def _made(root: Path) -> str:
    return secret_files.secret(LabPaths(root), "service-token")


def test_a_secret_that_several_make_at_once_is_one(lab: Lab) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert len(set(pool.map(_made, [lab.paths.root] * 16))) == 1
