"""The doctor's checks of a lab: wrong modes, tasks that nobody looks after, what kills left behind, busy ports."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import free_port, reachable_folder
from patients import a_lab, as_nobody, facts_of, severities

from ailab import files
from ailab.doctor import leftovers, permissions, processes, redaction, report, table
from ailab.doctor.findings import Severity
from ailab.environments.halves import lock_of
from ailab.errors import AilabError
from ailab.paths import LabPaths
from ailab.runtimes.base import TaskSpec
from ailab.runtimes.process import ProcessRuntime
from ailab.waiting import wait_for

OK, WARNING, ERROR = Severity.ok, Severity.warning, Severity.error


@pytest.fixture
def lab() -> Iterator[LabPaths]:
    """A lab with a path that is short enough for its sockets to lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="doc", dir="/tmp"))
    yield a_lab(folder / "lab")
    shutil.rmtree(folder, ignore_errors=True)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_modes_are_seen_and_mended(lab: LabPaths, tmp_path: Path) -> None:
    secret = lab.secrets / "token"
    secret.write_text("0123456789")
    secret.chmod(0o644)
    lab.secrets.chmod(0o755)
    lab.tasks.chmod(0o500)
    facts = facts_of(tmp_path, lab)
    found = {finding.remedy: finding for finding in permissions.lab_folders(facts)}
    assert {remedy: finding.severity for remedy, finding in found.items()} == {
        f"chmod 700 {lab.secrets}": ERROR, f"chmod 600 {secret}": ERROR, f"chmod 700 {lab.tasks}": WARNING
    }  # fmt: skip
    assert "drwxr-xr-x" in found[f"chmod 700 {lab.secrets}"].evidence
    for finding in found.values():
        assert finding.fix is not None
        finding.fix.do()
    assert (mode(lab.secrets), mode(secret), mode(lab.tasks)) == (0o700, 0o600, 0o700)
    assert severities(permissions.lab_folders(facts)) == [OK]


def test_a_link_in_place_of_a_folder_is_named_and_never_followed(lab: LabPaths, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    lab.hub.rmdir()
    lab.hub.symlink_to(elsewhere)
    found = list(permissions.lab_folders(facts_of(tmp_path, lab)))
    assert severities(found) == [ERROR] and found[0].fix is None
    with pytest.raises(OSError):
        permissions._close(lab.hub, 0o700)
    assert mode(elsewhere) == 0o755


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away, which needs root")
def test_what_belongs_to_another_account_is_not_mended(lab: LabPaths, tmp_path: Path) -> None:
    os.chown(lab.secrets, 65534, -1)
    found = list(permissions.lab_folders(facts_of(tmp_path, lab)))
    assert severities(found) == [ERROR] and found[0].fix is None
    assert "nobody" in found[0].evidence and f"chown -R root: {lab.secrets}" in found[0].remedy


def test_a_lab_that_was_never_started(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text("")
    facts = facts_of(tmp_path / "home", LabPaths(tmp_path))
    assert severities(permissions.lab_folders(facts)) == [OK]
    assert severities(processes.tasks(facts)) == [OK] and severities(leftovers.files(facts)) == [OK]


def sleeper(lab: LabPaths) -> ProcessRuntime:
    runtime = ProcessRuntime(lab.tasks)
    words = (sys.executable, "-c", "import time; time.sleep(600)")
    runtime.start(TaskSpec("sleeper", "sleeper", "job", words, {}, str(lab.root)))
    return runtime


def test_tasks_without_a_daemon(lab: LabPaths, tmp_path: Path) -> None:
    runtime = sleeper(lab)
    try:
        found = list(processes.tasks(facts_of(tmp_path, lab)))
        assert severities(found) == [WARNING] and found[0].evidence == "sleeper"
        assert "ailab up" in found[0].remedy and "ailab down" in found[0].remedy
    finally:
        runtime.stop("sleeper", grace=0)
    assert severities(processes.tasks(facts_of(tmp_path, lab))) == [OK]


def test_a_daemon_that_holds_its_lock_and_says_nothing(lab: LabPaths, tmp_path: Path) -> None:
    with (lab.run / "daemon.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("4711")
        held.flush()
        found = list(processes.tasks(facts_of(tmp_path, lab)))
    assert severities(found) == [ERROR] and "4711" in found[0].evidence and "ailab down" in found[0].remedy


def test_processes_of_a_lab_that_was_removed(lab: LabPaths, tmp_path: Path) -> None:
    runtime = sleeper(lab)
    shim = int((lab.tasks / "sleeper" / "lock").read_text())
    child = runtime.poll("sleeper").pid
    facts = facts_of(tmp_path)
    assert f"kill {shim}" not in " ".join(finding.remedy for finding in processes.orphans(facts))
    try:
        shutil.rmtree(lab.root)
        (found,) = processes.orphans(facts)
        assert found.severity == WARNING and str(shim) in found.remedy.split() and found.remedy.startswith("kill ")
    finally:
        os.kill(shim, signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{child}").exists(), timeout=20, what="the task to end with its shim")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="a process that sees other files is made by root")
@pytest.mark.parametrize(("before", "told"), [((), True), (("unshare", "--mount"), False)])
def test_processes_in_a_container_work_on_folders_of_their_own(
    tmp_path: Path, before: tuple[str, ...], told: bool
) -> None:
    words = ("sh", "-c", "echo; read line", "/opt/ailab/runtimes/shim.py", "/none/.ailab/tasks/hub")
    with subprocess.Popen([*before, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stdout.readline() == b"\n"
        said = " ".join(finding.remedy for finding in processes.orphans(facts_of(tmp_path)))
        assert (str(running.pid) in said.split()) == told
        running.communicate(b"\n")


def listening(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen()
    return made


def test_stale_sockets_are_swept_up_and_others_are_not(lab: LabPaths, tmp_path: Path) -> None:
    stale, used = lab.run / "hub.sock", lab.run / "other.sock"
    listening(stale).close()
    with listening(used):
        (found,) = leftovers.files(facts_of(tmp_path, lab))
        assert found.severity == OK and found.evidence == str(stale) and found.fix is not None
        found.fix.do()
    assert not stale.exists() and used.exists()


def test_a_socket_that_came_back_to_life_is_not_removed(lab: LabPaths, tmp_path: Path) -> None:
    path = lab.run / "hub.sock"
    listening(path).close()
    (found,) = leftovers.files(facts_of(tmp_path, lab))
    path.unlink()
    with listening(path):
        assert found.fix is not None
        found.fix.do()
        assert path.exists()


def test_half_made_switches(lab: LabPaths, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stale, busy = lab.environment / f"current.{ended.pid}", lab.environment / f"current.{os.getpid()}"
    for link in (stale, busy, lab.current):
        link.symlink_to(tmp_path)
    (found,) = leftovers.files(facts_of(tmp_path, lab))
    assert found.severity == WARNING and found.evidence == str(stale) and found.fix is not None
    found.fix.do()
    assert not stale.is_symlink() and busy.is_symlink() and lab.current.is_symlink()


def test_builds_that_were_killed(tmp_path: Path) -> None:
    generations = tmp_path / "generations"
    killed, building, complete = (generations / name for name in ("killed", "building", "complete"))
    for folder in (killed, building, complete):
        (folder / "lib").mkdir(parents=True)
    (complete / "generation.json").write_text("{}")
    facts = facts_of(tmp_path)
    (tmp_path / "locks").mkdir(mode=0o700)
    with files.locked(lock_of(building)):
        (found,) = leftovers.builds(facts)
        assert found.severity == WARNING and found.remedy == f"rm -r {killed}" and found.fix is not None
        found.fix.do()
    assert not killed.exists() and building.exists() and complete.exists()
    (found,) = leftovers.builds(facts)
    assert str(building) in found.evidence, "its builder has gone too"


def test_a_port_that_another_program_holds(lab: LabPaths, tmp_path: Path) -> None:
    port = free_port()
    lab.settings.write_text(f"[access]\nport = {port}\n")
    facts = facts_of(tmp_path, lab)
    facts.probes.port()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(AilabError) as refused:
        facts.probes.port()
    assert str(port) in refused.value.message and "--port" in refused.value.remedy


@pytest.mark.parametrize(
    ("toml", "lock", "said"),
    [("[acces]\n", "", "acces"), ("x = = 1", "", "lab.toml:1"), ('[environment]\nstack = "none"\n', "", "none"),
     ("", "<<<<<<< ours\n", "lab.lock:1"), ("", "format = 99\n", "newer")],
)  # fmt: skip
def test_settings_that_cannot_be_read_leave_the_other_checks_their_defaults(
    lab: LabPaths, tmp_path: Path, toml: str, lock: str, said: str
) -> None:
    lab.settings.write_text(toml)
    if lock:
        lab.lock.write_text(lock)
    facts = facts_of(tmp_path, lab)
    with pytest.raises(AilabError) as refused:
        facts.probes.settings()
    assert said in refused.value.message and refused.value.remedy
    assert facts.packages and severities(permissions.lab_folders(replace(facts))) == [OK]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="looks as another account, which needs root")
def test_another_account_is_told_whose_the_lab_is_and_no_check_breaks() -> None:
    with reachable_folder() as folder:
        lab = a_lab(folder / "lab")

        def look() -> str:
            facts = facts_of(folder / "home", lab)
            redaction.learn_secrets(facts.lab, {})
            results = table.run(table.lab_checks(), facts)
            return report.compose(facts, results, {}, "(none)")

        said = as_nobody(look)
    assert "belongs to another account" in said and "Run as root" in said and "may not look into" in said
    assert "broke" not in said
