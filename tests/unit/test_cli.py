"""The command line's own words: what is refused, and commands as this person has to type them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ailab.cli import main, output


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AILAB_LANG", "en")
    monkeypatch.delenv("AILAB_COMMAND", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nonsense"], "There is no command nonsense."),
        (["up", "--prt", "1"], "There is no option --prt. Did you mean --port?"),
        (["up", "--port", "many"], "--port cannot be that"),
        (["env", "use"], "Something is missing: argument 'generation'."),
        (["--lab"], "--lab needs a folder."),
    ],
)
def test_usage_is_refused_with_what_to_type(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(argv) == 2
    told = capsys.readouterr()
    assert said in told.err and "What to do: " in told.err and told.out == ""
    assert main.run([*argv, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["kind"] == "usage" and said in error["message"] and error["remedy"]


def test_no_lab_is_an_error_with_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["status"]) == 1
    assert "ailab up" in capsys.readouterr().err


def test_commands_are_shown_as_this_person_types_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert output.as_typed("Start it: ailab up") == "Start it: ailab up"
    monkeypatch.setenv("AILAB_COMMAND", "./ailab")
    assert output.as_typed("Start it: ailab up") == "Start it: ./ailab up"
    assert output.as_typed(output.as_typed("Start it: ailab up")) == "Start it: ./ailab up"
    assert output.as_typed("Another ailab works; it is in /srv/ailab up there") == (
        "Another ailab works; it is in /srv/ailab up there"
    )
    monkeypatch.setattr(output.invocation.current, "lab", Path("/srv/my lab"))
    assert output.as_typed("ailab env list, or ailab init") == "./ailab --lab '/srv/my lab' env list, or ./ailab init"


def test_every_command_is_one_that_sentences_may_name() -> None:
    app = main.build_app()
    names = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    assert names == set(output.COMMANDS)


def test_nothing_asked_for_is_answered_with_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([]) == 2
    said = capsys.readouterr()
    assert said.out.startswith("Usage: ailab") and not said.err
