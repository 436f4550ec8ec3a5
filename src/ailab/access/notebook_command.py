"""A notebook as a job's command: what was asked for, and the program that runs it cell by cell."""

from __future__ import annotations

import json
import keyword
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from ailab.errors import UsageError
from ailab.i18n import _

_SUFFIX = ".ipynb"
_RUNNER = "ailab.access.notebook_job"
# As papermill calls them.
_TYPED = ("-p", "--parameters")
_RAW = ("-r", "--parameters_raw")
_CONSTANTS = {"True": True, "False": False, "None": None}


@dataclass(frozen=True)
class NotebookRun:
    """A notebook, with what its parameters are to be, and where its executed copy is kept: empty, beside it."""

    notebook: str
    parameters: dict[str, Any] = field(default_factory=dict)
    output: str = ""

    def output_of(self, job: int) -> str:
        """Where job number `job` keeps the executed copy."""
        notebook = PurePath(self.notebook)
        return self.output or str(notebook.with_name(f"{notebook.stem}-job-{job}{_SUFFIX}"))


def asked_for(command: Sequence[str]) -> NotebookRun | None:
    """What a command asks for that begins with a notebook; None for any other command.

    Its words are papermill's: `-p NAME VALUE`, where a value is a number, True, False, None or else text, as papermill
    reads them (https://papermill.readthedocs.io/en/latest/usage-cli.html); `-r NAME TEXT`; and `--output FILE`. Raises
    `UsageError` for others.
    """
    if not command[0].endswith(_SUFFIX):
        return None
    parameters: dict[str, Any] = {}
    output = ""
    words = iter(command[1:])
    for word in words:
        if word in (*_TYPED, *_RAW):
            name, value = _pair(word, next(words, None), next(words, None))
            parameters[name] = value if word in _RAW else typed(value)
        elif word == "--output" or word.startswith("--output="):
            output = _output(command[0], word.partition("=")[2] or next(words, ""))
        elif word != "--":
            raise UsageError(
                _("A notebook does not take {word}.").format(word=word),
                remedy=_("What it takes: -p NAME VALUE, -r NAME TEXT, --output FILE"),
            )
    return NotebookRun(command[0], parameters, output)


def _pair(option: str, name: str | None, value: str | None) -> tuple[str, str]:
    if name is None or value is None:
        raise UsageError(
            _("{option} needs a name and a value.").format(option=option), remedy=_("For example: -p epochs 10")
        )
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UsageError(
            _("{name} cannot be the name of a parameter.").format(name=name), remedy=_("For example: -p epochs 10")
        )
    return name, value


def _output(notebook: str, output: str) -> str:
    if not output.endswith(_SUFFIX) or PurePath(output) == PurePath(notebook):
        raise UsageError(
            _("--output needs the name of another notebook."), remedy=_("For example: --output results.ipynb")
        )
    return output


def typed(text: str) -> Any:
    """The value that a text means: a constant of Python, a whole number, a number, or the text itself."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def program(run: NotebookRun, output: str, *, python: str, kernel: Mapping[str, Any]) -> tuple[str, ...]:
    """What is run: `python`, one that has ailab, runs the notebook in the kernel of `kernel` (a kernel.json)
    and keeps the executed copy at `output`.

    With -I, because what a person sets for their notebook (PYTHONPATH above all) is meant for the kernel.
    """
    options = (
        f"--kernel={json.dumps(kernel)}",
        f"--parameters={json.dumps(run.parameters)}",
        f"--output={output}",
    )
    return (python, "-I", "-m", _RUNNER, *options, "--", run.notebook)
