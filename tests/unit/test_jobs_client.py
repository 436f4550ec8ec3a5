"""`ailab_jobs` by itself: its words are those of `ailab run`, and a log is given line by line, each once."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ailab.cli.run import run as command_line
from ailab.jobs.progress import CLIENT_FOLDER
from ailab.jobs.wish import JobWish

sys.path.insert(0, str(CLIENT_FOLDER))
import ailab_jobs
import ailab_magic
from ailab_jobs import Jobs, JobsError
from ailab_magic import parse

# Each has a function of its own.
APART = {"array", "every"}
_PLACEHOLDER = re.compile(r"\{\w+(?::\w+)?\}")


class Desk:
    """Answers as the lab does: a job's log as it grows from look to look, and what was asked for."""

    def __init__(self, *logs: list[str]) -> None:
        self.logs = list(logs)
        self.asked: list[tuple[str, str, Any]] = []

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        self.asked.append((method, path, body))
        if "/log?" in path:
            after = int(path.rpartition("=")[2])
            kept = self.logs.pop(0) if len(self.logs) > 1 else self.logs[0]
            return {"lines": kept[after:], "next": max(len(kept), 0), "more": False}
        if method == "POST":
            return {"jobs": [7], "schedule": None}
        return {
            "id": 7,
            "name": "train",
            "note": "",
            "members": [{}],
            "state": "running" if len(self.logs) > 1 else "done",
        }

    def place(self, path: Path) -> str:
        return f"at {path}"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ailab_jobs, "LOOK_SECONDS", 0.0)


def followed(*logs: list[str]) -> list[str]:
    return list(Jobs(Desk(*logs)).get(7).logs(follow=True))


def test_its_words_are_those_of_the_wish_and_of_the_command_line() -> None:
    words = set(inspect.signature(Jobs.run).parameters) - {"self"}
    assert words == set(JobWish.model_fields) - APART
    magic = {"env", *ailab_magic._FLAGS, *ailab_magic._LISTS, *ailab_magic._OTHERS}
    assert magic == words - {"command"}
    typed = set(inspect.signature(command_line).parameters) - {"file", "json", "follow", "command"} - APART
    assert {{"inputs": "input"}.get(word, word) for word in magic} == typed


def test_a_line_is_read_as_the_command_line_is() -> None:
    line = "--cpus 2 --name=a-b --resume --env A=1 --env B=x=y --after 3 --after 4:any --input d -f -- python t.py -g 3"
    wish, words = parse(line)
    assert words == ["python", "t.py", "-g", "3"]
    assert wish == {
        "cpus": "2",
        "name": "a-b",
        "resume": True,
        "env": {"A": "1", "B": "x=y"},
        "after": ["3", "4:any"],
        "inputs": ["d"],
        "follow": True,
    }
    assert parse("--gpu-fraction 0.5 'a b' c") == ({"gpu_fraction": "0.5"}, ["a b", "c"])
    for wrong in ("--gpu 1 true", "-x true", "--name"):
        with pytest.raises(JobsError):
            parse(wrong)


def test_what_is_asked_for(tmp_path: Path) -> None:
    desk = Desk([])
    lab = Jobs(desk)
    job = lab.run("python train.py 'a b'", cwd=str(tmp_path), after=[lab.get(7), 3], inputs=["d"], seed=0)
    assert job.id == 7
    assert desk.asked[1] == (
        "POST",
        "/jobs",
        {
            "wish": {
                "command": ["python", "train.py", "a b"],
                "cwd": f"at {tmp_path}",
                "after": ["7", "3"],
                "inputs": [f"at {tmp_path / 'd'}"],
                "seed": 0,
            }
        },
    )


@pytest.mark.parametrize(
    ("logs", "given"),
    [
        ([[]], []),
        ([["a"]], ["a"]),
        ([[], ["a", "b"], ["a", "b", "c"]], ["a", "b", "c"]),
        ([["a", "ste"], ["a", "step 1", "b"]], ["a", "step 1", "b"]),
        ([["ste"], ["ste"], ["step 1"], ["step 1"]], ["ste", "p 1"]),
        ([["a", "b", "c"], ["a", "b", "c"], ["c"], ["c", "d"]], ["a", "b", "c", "d"]),
    ],
    ids=["nothing", "at once", "as it grows", "a part of a line", "a part for long", "the older half goes"],
)
def test_each_line_of_a_log_once(logs: list[list[str]], given: list[str]) -> None:
    assert followed(*logs) == given


class Gang(Desk):
    """A job of two workers, each with a log of its own."""

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        if "/log?" in path:
            member, after = (int(part.partition("=")[2]) for part in path.partition("?")[2].split("&"))
            kept = [f"of {member}", "end"]
            return {"lines": kept[after:], "next": len(kept), "more": False}
        return super().call(method, path, body) | {"members": [{}, {}]}


def test_of_several_workers_each_line_says_whose_it_is() -> None:
    assert list(Jobs(Gang([])).get(7).logs()) == ["[0] of 0", "[0] end", "[1] of 1", "[1] end"]


def test_without_following_what_is_there() -> None:
    assert list(Jobs(Desk(["a", "b"], ["a", "b", "c"])).get(7).logs()) == ["a", "b"]


def test_waiting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TimeoutError, match="7"):
        Jobs(Desk([], [])).get(7).wait(timeout=0.0)
    assert Jobs(Desk([])).get(7).wait(timeout=0.0).has_ended


def test_outside_of_a_lab_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JUPYTERHUB_API_TOKEN", "AILAB_PORTAL", "AILAB_DAEMON", "AILAB_USER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(JobsError, match="ailab run"):
        ailab_jobs.find()
    monkeypatch.setenv("AILAB_LANGUAGE", "zh")
    with pytest.raises(JobsError, match="实验室"):
        ailab_jobs.find()
    monkeypatch.setenv("AILAB_DAEMON", "/nowhere/daemon.sock")
    monkeypatch.setenv("AILAB_USER", "li")
    with pytest.raises(JobsError) as refused:
        ailab_jobs.find()
    assert refused.value.kind == "not-running"


def test_chinese_has_the_same_placeholders_and_nothing_that_is_not_said() -> None:
    text = (CLIENT_FOLDER / "ailab_jobs.py").read_text(encoding="utf-8").partition("}\n\n\ndef say")[2]
    text += (CLIENT_FOLDER / "ailab_magic.py").read_text(encoding="utf-8")
    for english, chinese in ailab_jobs._CHINESE.items():
        assert sorted(_PLACEHOLDER.findall(english)) == sorted(_PLACEHOLDER.findall(chinese))
        assert f'"{english}"' in text, english


def old_pythons() -> Iterator[str]:
    pyenv = Path.home() / ".pyenv/versions"
    yield from (str(found) for found in sorted(pyenv.glob("3.8*/bin/python")))


@pytest.mark.parametrize("python", [*old_pythons(), sys.executable])
def test_it_loads_alone_on_the_oldest_python(python: str) -> None:
    code = "import ailab_magic; ailab_magic.parse('--cpus 1 true'); print('loaded')"
    done = subprocess.run([python, "-c", code], env={"PYTHONPATH": str(CLIENT_FOLDER)}, capture_output=True, text=True)
    assert done.stdout == "loaded\n", done.stderr
