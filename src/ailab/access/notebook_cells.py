"""What a run changes in a notebook: the cell with the parameters, and outputs as a person is to find them."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from typing import Any

from ailab.i18n import _

# papermill's own tags (https://papermill.readthedocs.io/en/latest/usage-parameterize.html), so that its notebooks run.
_PARAMETERS = "parameters"
_INJECTED = "injected-parameters"
_SKIPPED = "skip-execution"
# Of what one cell has written without a pause; past it the first half goes, for the job's log has all of it.
LARGEST_TEXT = 1_000_000


def inject(notebook: Any, parameters: Mapping[str, Any]) -> None:
    """Put a cell that sets `parameters` after the one tagged `parameters`, in the place of one from an earlier run, or
    at the top where there is neither. Without parameters the notebook stays as it is."""
    if not parameters:
        return
    from nbformat.v4 import new_code_cell

    cell = new_code_cell(code_of(parameters), metadata={"tags": [_INJECTED]})  # type: ignore[no-untyped-call]
    if notebook.nbformat_minor < 5:
        # Ids of cells came with 4.5: nbformat's changelog, JEP 62.
        del cell["id"]
    before = _place_of(notebook, _INJECTED)
    if before is not None:
        notebook.cells[before] = cell
        return
    defaults = _place_of(notebook, _PARAMETERS)
    notebook.cells.insert(0 if defaults is None else defaults + 1, cell)


def unknown(notebook: Any, parameters: Mapping[str, Any]) -> list[str]:
    """The parameters that the cell tagged `parameters` gives no value: misspelt, as a rule. None where there is no such
    cell, or none that can be read."""
    place = _place_of(notebook, _PARAMETERS)
    if place is None:
        return []
    try:
        tree = ast.parse(notebook.cells[place].source)
    except SyntaxError:
        return []
    given = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return [name for name in parameters if name not in given]


def _place_of(notebook: Any, tag: str) -> int | None:
    return next((place for place, cell in enumerate(notebook.cells) if tag in cell.metadata.get("tags", [])), None)


def code_of(parameters: Mapping[str, Any]) -> str:
    return "\n".join(["# Parameters", *(f"{name} = {_literal(value)}" for name, value in parameters.items())])


def _literal(value: Any) -> str:
    """A number that has no literal in Python is made from its text."""
    is_odd = isinstance(value, float) and not math.isfinite(value)
    return f'float("{value}")' if is_odd else repr(value)


def clear(notebook: Any) -> None:
    """Take away what earlier runs have put out: in a run that ends early nothing old is to look like its own."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
            cell.metadata.pop("execution", None)


def is_run(cell: Any) -> bool:
    """Whether there is anything in a cell that a run runs."""
    return cell.cell_type == "code" and bool(cell.source.strip()) and _SKIPPED not in cell.metadata.get("tags", [])


def join_text(outputs: list[Any]) -> None:
    """Make one of the last output and the one before, where both are text of the same stream: a loop that prints would
    else leave thousands. What a carriage return has overwritten, as progress bars do, is dropped."""
    last = outputs[-1]
    if last.output_type != "stream":
        return
    before = outputs[-2] if len(outputs) > 1 else None
    if before is not None and before.output_type == "stream" and before.name == last.name:
        before.text = joined(before.text, last.text)
        outputs.pop()
    else:
        last.text = joined("", last.text)


def joined(old: str, new: str) -> str:
    start = old.rfind("\n") + 1
    text = old[:start] + "\n".join(_as_left(line) for line in (old[start:] + new).split("\n"))
    if len(text) <= LARGEST_TEXT:
        return text
    return _("[The beginning is in the job's log alone.]") + "\n" + text[-LARGEST_TEXT // 2 :]


def _as_left(line: str) -> str:
    """A line as a terminal would show it in the end. A carriage return at its end has overwritten nothing yet."""
    written = line.rstrip("\r")
    return written.rpartition("\r")[2] + line[len(written) :]
