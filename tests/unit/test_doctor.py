"""The doctor as a whole: checks that break or hang, secrets, the report, the command."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import CHECKOUT, free_port
from patients import a_lab, facts_of, severities

from ailab import command
from ailab.access import secret_files
from ailab.cli import doctor as doctor_command
from ailab.cli import main
from ailab.doctor import redaction, report, table
from ailab.doctor.facts import Facts
from ailab.doctor.findings import Check, Finding, Result, Severity, error, fine, warning, worst
from ailab.errors import AilabError
from ailab.paths import LabPaths
from ailab.runtimes.base import TaskSpec
from ailab.runtimes.process import ProcessRuntime
from ailab.store import Store

OK, WARNING, ERROR = Severity.ok, Severity.warning, Severity.error


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A person's surroundings without a lab, in English; no secret of one test is known to the next."""
    monkeypatch.setenv("AILAB_LANG", "en")
    monkeypatch.setenv("AILAB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(command, "_secrets", set())
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    yield


def run(facts: Facts, *looks: Any, patience: float = 3.0) -> tuple[Result, ...]:
    checks = [Check(f"check-{number}", "A check", look) for number, look in enumerate(looks)]
    return table.run(checks, facts, patience)


def test_a_check_that_breaks_is_a_finding_and_stops_no_other(tmp_path: Path) -> None:
    def breaks(facts: Facts) -> Iterator[Finding]:
        yield fine("so far")
        raise ZeroDivisionError("of all things")

    def refuses(facts: Facts) -> Iterator[Finding]:
        raise AilabError("cause", remedy="ailab up", detail="first\nlast")
        yield fine("never")

    def closed(facts: Facts) -> Iterator[Finding]:
        raise PermissionError(13, "Permission denied", "/root/x")
        yield fine("never")

    broke, refused, shut, last = run(facts_of(tmp_path), breaks, refuses, closed, lambda _facts: [fine("last")])
    assert severities(broke.findings) == [OK, ERROR]
    assert "ZeroDivisionError: of all things" in broke.findings[1].evidence and __file__ in broke.findings[1].evidence
    assert refused.findings == (error("cause", "last", "ailab up"),)
    assert "/root/x" in shut.findings[0].message and "account" in shut.findings[0].remedy
    assert last.findings == (fine("last"),)


def test_a_check_that_hangs_is_given_up_and_named(tmp_path: Path) -> None:
    forever = threading.Event()

    def hangs(facts: Facts) -> Iterator[Finding]:
        forever.wait(60)
        yield fine("too late")

    started = time.monotonic()
    hung, other = run(facts_of(tmp_path), hangs, lambda _facts: [fine("on time")], patience=0.3)
    forever.set()
    assert time.monotonic() - started < 2
    assert severities(hung.findings) == [ERROR] and "0.3 s" in hung.findings[0].message
    assert other.findings == (fine("on time"),)


def test_checks_run_side_by_side_and_are_told_in_order(tmp_path: Path) -> None:
    meeting = threading.Barrier(4, timeout=3)

    def meets(facts: Facts) -> Iterator[Finding]:
        meeting.wait()
        yield fine("met")

    results = run(facts_of(tmp_path), meets, meets, meets, meets)
    assert [result.name for result in results] == [f"check-{number}" for number in range(4)]
    assert worst(results) == OK


def test_the_worst_of_all() -> None:
    results = [Result("x", "X", (fine("a"), warning("b")), 0.0), Result("y", "Y", (), 0.0)]
    assert worst(results) == WARNING and worst([]) == OK
    assert worst([*results, Result("z", "Z", (error("c"), fine("d")), 0.0)]) == ERROR


def test_every_check_has_its_own_name_and_looks_at_this_machine_without_breaking(tmp_path: Path) -> None:
    facts = facts_of(tmp_path / "home", a_lab(tmp_path / "lab"))
    checks = table.checks_for(facts)
    assert len({check.name for check in checks}) == len(checks)
    assert {check.name for check in table.checks_for(replace(facts, lab=None))} < {check.name for check in checks}
    for result in table.run(checks, facts, 30):
        assert result.findings, result.name
        assert not any("broke" in finding.message for finding in result.findings), result


SHOWN = "the line of the log stays"
# What a log may hold, and the part of it that must not leave the machine.
SECRETS = {
    "password = hunter2-is-long": "hunter2-is-long",
    "PASSWORD='two words here'": "two words here",
    "Authorization: token 1a2b3c4d5e6f7a8b": "1a2b3c4d5e6f7a8b",
    "Cookie: session=abc123": "abc123",
    "token=Zm9vYmFyYmF6": "Zm9vYmFyYmF6",
    "?code=one-time-code1": "one-time-code1",
    "https://ada:geheim99@mirror.example/simple": "geheim99",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345": "0123456789abcdefghijABCDEFGHIJ012345",
    "Bearer abc.def-123456": "abc.def-123456",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl": "c2lnbmF0dXJl",
    "api_key: 0f8fad5b": "0f8fad5b",
    "AKIAIOSFODNN7EXAMPLE": "AKIAIOSFODNN7EXAMPLE",
    "$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA": "aGFzaA",
    "0123456789abcdef0123456789abcdef": "0123456789abcdef0123456789abcdef",
    '{"JUPYTERHUB_API_TOKEN": "x9y8z7"}': "x9y8z7",
    "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----": "MHcCAQEE",
}


@pytest.mark.parametrize(("text", "leak"), list(SECRETS.items()), ids=range(len(SECRETS)))
def test_what_looks_like_a_secret_is_taken_out(text: str, leak: str) -> None:
    assert leak in text
    assert leak not in redaction.redact(f"{SHOWN}\n{text}\n{SHOWN}")
    assert redaction.redact(f"{SHOWN}\n{text}\n{SHOWN}").count(SHOWN) == 2


@pytest.mark.parametrize(
    "text",
    ["generation science-py311-61e814bf", "GET /hub/api 200", "pid 4711, 2026-11-25T00:54:43+00:00", "token expired",
     "https://pypi.org/simple/ipykernel/", "exit code: 1", "/tmp/ailab-0-004ce511/hub.sock", "git@host", "a monkey: 5"],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert redaction.redact(text) == text


def test_no_finding_shows_the_login_of_a_mirror_or_a_proxy(tmp_path: Path) -> None:
    facts = facts_of(
        tmp_path,
        index="http://ada:geheim99@127.0.0.1:9/simple",
        network={"http_proxy": "http://eve:pst-4711@127.0.0.1:9"},
    )
    results = table.run(table.machine_checks(), facts)
    text = json.dumps([result.to_json() for result in results])
    assert "geheim99" not in text and "pst-4711" not in text
    assert "***@127.0.0.1:9" in text


def planted(tmp_path: Path) -> tuple[LabPaths, list[str]]:
    """A lab whose secrets have found their way into everything that a report could show."""
    login = "https://ada:geheim99@mirror.example/simple"
    lab = a_lab(tmp_path / "lab", f'[mirrors]\npypi = "{login}"\n')
    known = [secret_files.secret(lab, name) for name in secret_files.NAMES]
    # One that looks like nothing: only the lab's own folder tells that it is one.
    (lab.secrets / "plain").write_text("correct horse battery\n")
    handed = {"JUPYTERHUB_API_TOKEN": "plain-words-too", "MLFLOW_TRACKING_PASSWORD": "sesame-open", "PATH": os.defpath}
    runtime = ProcessRuntime(lab.tasks)
    told = " ".join([*known, *handed.values(), "correct horse battery", "token=fresh4711", login])
    words = (sys.executable, "-c", f"print({SHOWN!r}); print({told!r})")
    runtime.start(TaskSpec("hub", "hub", "service", words, handed, str(lab.root)))
    list(runtime.logs("hub", follow=True))
    lab.daemon_log.write_text(f"{SHOWN}\n{told}\n")
    store = Store(lab.database).open()
    with store.engine.begin() as connection:
        from ailab.events import record

        record(connection, actor="ada", kind="task", subject=f"hub {known[0]}", after="running")
    store.engine.dispose()
    return lab, [*known, "plain-words-too", "sesame-open", "correct horse battery", "fresh4711", "geheim99"]


def test_a_report_holds_what_is_needed_and_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab, secrets = planted(tmp_path)
    file = tmp_path / "report.md"
    main.run(["--lab", str(lab.root), "doctor", "--report", str(file)])
    text, told = file.read_text(), "".join(capsys.readouterr())
    for wanted in (
        "## Findings",
        "## lab.toml",
        "[mirrors]",
        "## Events",
        "ada task hub",
        "ailab: ",
        "daemon.log",
        "tasks/hub/log",
    ):
        assert wanted in text, wanted
    assert text.count(SHOWN) == 2, "the logs are there"
    for secret in secrets:
        assert secret not in text and secret not in told, secret
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_report_never_writes_over_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("mine")
    assert main.run(["doctor", "--report", str(file)]) == 1
    assert file.read_text() == "mine" and "is there already" in capsys.readouterr().err
    assert main.run(["doctor", "--report", str(tmp_path / "none" / "report.md")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_logs_and_databases_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    from ailab import checkup

    lab = a_lab(tmp_path / "lab")
    assert "none:" in checkup.newest_events(lab)
    lab.database.write_text("no database")
    assert "none:" in checkup.newest_events(lab)
    lab.daemon_log.write_bytes(b"\xff\xfe broken ```\n" * 100_000)
    text = report.compose(facts_of(tmp_path / "home", lab), [], {}, "(none)")
    assert text.count("broken") == report.LAST_LINES and "````\n" in text


def examined(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    status = main.run([*argv, "doctor", "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_without_a_lab_the_machine_is_examined(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    status, said = examined([], capsys)
    names = [check["name"] for check in said["checks"]]
    assert status == 1 and said["worst"] == "error" and said["fixed"] == [] and said["report"] is None
    assert "index" in names and "permissions" not in names
    (index,) = next(check["findings"] for check in said["checks"] if check["name"] == "index")
    assert set(index) == {"severity", "message", "evidence", "remedy", "fix"} and index["severity"] == "error"


def test_a_folder_that_is_no_lab_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--lab", str(tmp_path / "none"), "doctor"]) == 2
    assert "no lab in" in capsys.readouterr().err


def all_well(lab: LabPaths, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A lab that needs nothing from the network or of the machine's own lab, so that only what a test breaks is wrong;
    the words that name it."""
    (lab.root.parent / "index").mkdir()
    text = f'[environment]\nstack = "science"\n[mirrors]\npypi = "file://{lab.root.parent}/index"\n'
    lab.settings.write_text(f"{text}[access]\nport = {free_port()}\n")
    monkeypatch.setattr("ailab.access.tools.missing", lambda _machine: False)
    # Beside this test others start and remove labs.
    monkeypatch.setattr("ailab.doctor.processes._ours", lambda _facts: iter(()))
    return ["--lab", str(lab.root)]


def test_warnings_alone_are_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = a_lab(tmp_path / "lab")
    words = all_well(lab, monkeypatch)
    lab.tasks.chmod(0o500)
    status, said = examined(words, capsys)
    assert said["worst"] == "warning", said
    assert status == 0
    lab.tasks.chmod(0o755)
    status, said = examined(words, capsys)
    assert (status, said["worst"]) == (1, "error")


def test_fix_does_the_safe_ones_and_looks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = a_lab(tmp_path / "lab")
    words = all_well(lab, monkeypatch)
    lab.secrets.chmod(0o755)
    killed = tmp_path / "home" / "generations" / "killed"
    (killed / "lib").mkdir(parents=True)
    assert main.run([*words, "doctor", "--fix", "--yes", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert sorted(said["fixed"]) == [f"chmod 700 {lab.secrets}", f"rm -r {killed}"]
    assert said["worst"] == "ok", "what is shown is how it is now"
    assert not killed.exists() and stat.S_IMODE(lab.secrets.stat().st_mode) == 0o700


def test_fix_asks_first_and_a_no_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = a_lab(tmp_path / "lab")
    lab.secrets.chmod(0o755)
    for fix in (["--fix"], ["--fix", "--json"]):
        assert main.run(["--lab", str(lab.root), "doctor", *fix]) == 2, "nobody is there to be asked"
        assert "--fix --yes" in "".join(capsys.readouterr())
    for answer, mode in (("n\n", 0o755), ("y\n", 0o700)):
        typed = _on_a_terminal(["--lab", str(lab.root), "doctor", "--fix"], answer, tmp_path)
        assert f"chmod 700 {lab.secrets}" in typed
        assert stat.S_IMODE(lab.secrets.stat().st_mode) == mode


def _on_a_terminal(words: list[str], answer: str, tmp_path: Path) -> str:
    """What the command shows on a pseudo-terminal on which `answer` is typed."""
    import pty

    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "ailab.cli.main", *words]
    environment = dict(os.environ) | {"PYTHONPATH": str(CHECKOUT / "src"), "HOME": str(tmp_path)}
    running = subprocess.Popen(program, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    os.write(ours, answer.encode())
    said, _none = running.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    return said.decode()


def test_a_fix_that_does_not_work_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    from ailab.doctor.findings import Fix

    def refuse() -> None:
        raise PermissionError(1, "Operation not permitted")

    results = (Result("x", "X", (error("wrong", fix=Fix("chmod 700 /x", refuse)),), 0.0),)
    assert doctor_command._mend(results, ask=False) == []
    assert "chmod 700 /x: Operation not permitted" in capsys.readouterr().err


def test_people_read_what_is_wrong_what_was_seen_and_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    results = (
        Result("disk", "Disk", (fine("80 GB free"),), 0.0),
        Result("port", "Web port", (error("Port 8888 is taken.", "pid 7", "ailab up --port 8889"),), 0.0),
    )
    text = doctor_command.as_text(results, ["chmod 700 /x"])
    assert re.search(r"^ok +Disk +80 GB free$", text, re.MULTILINE)
    assert "Seen: pid 7" in text and "What to do: ailab up --port 8889" in text and "Fixed: chmod 700 /x" in text
    assert text.endswith("1 errors, 0 warnings.")
    monkeypatch.setenv("AILAB_LANG", "zh")
    assert "怎么办：ailab up --port 8889" in doctor_command.as_text(results, [])


def test_in_chinese(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AILAB_LANG", "zh")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    main.run(["doctor"])
    assert "软件包索引" in capsys.readouterr().out
