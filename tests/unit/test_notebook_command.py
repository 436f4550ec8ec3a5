"""A notebook as a command: what may be asked, what is refused, what is run, and what its cells become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ailab.access import notebook_cells
from ailab.access.notebook_command import NotebookRun, asked_for, program, typed
from ailab.errors import UsageError


def test_other_commands_are_left_alone() -> None:
    assert asked_for(["python", "train.py"]) is None
    assert asked_for(["jupyter", "nbconvert", "a.ipynb"]) is None


def test_parameters_as_papermill_reads_them() -> None:
    words = ["train.ipynb", "--", "-p", "epochs", "3", "-p", "rate", "1e-3", "-p", "quick", "True", "-r", "tag", "007"]
    run = asked_for([*words, "--parameters", "name", "a b"])
    assert run is not None
    assert run.parameters == {"epochs": 3, "rate": 0.001, "quick": True, "tag": "007", "name": "a b"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("None", None), ("False", False), ("-2", -2), ("2.5", 2.5), ("true", "true"), ("", ""), ("[1]", "[1]")],
)
def test_typed(text: str, value: Any) -> None:
    assert typed(text) == value and type(typed(text)) is type(value)


def test_where_the_executed_copy_goes() -> None:
    assert NotebookRun("sub/train.ipynb").output_of(12) == "sub/train-job-12.ipynb"
    for words in (["--output", "out.ipynb"], ["--output=out.ipynb"]):
        run = asked_for(["train.ipynb", *words])
        assert run is not None and run.output_of(12) == "out.ipynb"


@pytest.mark.parametrize(
    "words",
    [["-p"], ["-p", "epochs"], ["-p", "two words", "1"], ["-p", "class", "1"], ["--epochs", "3"], ["--output"],
     ["--output", "train.ipynb"], ["--output", "./train.ipynb"], ["--output", "out.txt"]],
)  # fmt: skip
def test_what_it_does_not_take(words: list[str]) -> None:
    with pytest.raises(UsageError) as refused:
        asked_for(["train.ipynb", *words])
    assert refused.value.remedy


def test_what_is_run() -> None:
    run = NotebookRun("-odd name.ipynb", {"rate": 0.5})
    words = program(run, "/there/-odd name-job-3.ipynb", python="/opt/python", kernel={"argv": ["python"]})
    assert words[:4] == ("/opt/python", "-I", "-m", "ailab.access.notebook_job")
    assert words[-2:] == ("--", "-odd name.ipynb") and "--output=/there/-odd name-job-3.ipynb" in words
    assert json.loads(next(word for word in words if word.startswith("--parameters=")).partition("=")[2]) == {
        "rate": 0.5
    }


def notebook(*tags: str) -> Any:
    cells = [new_code_cell(f"# {tag}", metadata={"tags": [tag]}) for tag in tags]
    return new_notebook(cells=[new_markdown_cell("# Title"), *cells, new_code_cell("print(rate)")])


def sources(made: Any) -> list[str]:
    return [cell.source for cell in made.cells]


CODE = "# Parameters\nrate = 0.5\nname = 'it\\'s'"
VALUES = {"rate": 0.5, "name": "it's"}


def test_the_parameters_come_after_their_defaults() -> None:
    made = notebook("parameters")
    notebook_cells.inject(made, VALUES)
    assert sources(made)[1] == "# parameters" and made.cells[2].metadata.tags == ["injected-parameters"]
    given: dict[str, Any] = {}
    exec(sources(made)[2], given)
    assert {name: given[name] for name in VALUES} == VALUES
    nbformat.validate(made)


def test_those_of_an_earlier_run_are_replaced() -> None:
    made = notebook("parameters", "injected-parameters")
    notebook_cells.inject(made, VALUES)
    assert len(made.cells) == 4 and sources(made)[2].startswith("# Parameters\n")


def test_without_defaults_they_come_first() -> None:
    made = notebook()
    notebook_cells.inject(made, VALUES)
    assert sources(made)[0].startswith("# Parameters\n")
    untouched = notebook("parameters")
    notebook_cells.inject(untouched, {})
    assert sources(untouched) == sources(notebook("parameters"))


def test_an_old_notebook_gets_a_cell_without_id() -> None:
    made = nbformat.from_dict({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 2})
    notebook_cells.inject(made, VALUES)
    nbformat.validate(made)


def test_numbers_without_a_literal() -> None:
    given: dict[str, Any] = {}
    exec(notebook_cells.code_of({"low": float("-inf"), "none": None}), given)
    assert given["low"] == float("-inf") and given["none"] is None


def test_a_misspelt_parameter_is_known() -> None:
    made = new_notebook(
        cells=[new_code_cell("rate: float = 1\nepochs, size = 1, 2", metadata={"tags": ["parameters"]})]
    )
    assert notebook_cells.unknown(made, {"rate": 1, "epoch": 2, "size": 3}) == ["epoch"]
    assert notebook_cells.unknown(notebook(), {"rate": 1}) == []


def test_what_earlier_runs_left_is_cleared() -> None:
    made = new_notebook(cells=[new_code_cell("1", outputs=[new_output("stream", text="old")], execution_count=9)])
    notebook_cells.clear(made)
    assert made.cells[0].outputs == [] and made.cells[0].execution_count is None


def test_a_progress_bar_leaves_its_last_state() -> None:
    assert notebook_cells.joined("", "begin\n10%\r") == "begin\n10%\r"
    assert notebook_cells.joined("begin\n10%\r", "20%\r30%") == "begin\n30%"
    assert notebook_cells.joined("begin\r\n", "end\r\n") == "begin\r\nend\r\n"


def test_what_was_written_without_end_keeps_its_end() -> None:
    text = notebook_cells.joined("x" * notebook_cells.LARGEST_TEXT, "y" * 9)
    assert text.endswith("xyyyyyyyyy") and len(text) < notebook_cells.LARGEST_TEXT and text.startswith("[")


def test_text_of_one_stream_is_one_output() -> None:
    outputs: list[Any] = []
    for name, text in (("stdout", "a"), ("stdout", "b"), ("stderr", "c"), ("stdout", "d")):
        outputs.append(new_output("stream", name=name, text=text))
        notebook_cells.join_text(outputs)
    assert [(output.name, output.text) for output in outputs] == [("stdout", "ab"), ("stderr", "c"), ("stdout", "d")]


def test_the_workspace_finds_our_extension() -> None:
    from ailab.access.workspace_config import LAB_EXTENSIONS

    about = json.loads((LAB_EXTENSIONS / "ailab-jobs/package.json").read_text())
    assert (LAB_EXTENSIONS / "ailab-jobs" / Path(about["jupyterlab"]["_build"]["load"].partition("?")[0])).is_file()
