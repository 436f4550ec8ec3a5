"""The table of a stack has each of its bounds, its reason and what was seen when it was lifted; no path of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from ailab.stacks import list_stacks, load_stack

REFERENCE = Path(__file__).parents[2] / "docs/reference"


@pytest.mark.parametrize("name", list_stacks())
def test_the_table_is_of_the_bounds_as_they_are(name: str) -> None:
    text = (REFERENCE / f"bounds-{name}.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert [(row[0].strip("`"), row[5]) for row in rows] == [
        (bound.requirement, bound.reason.replace("|", "\\|")) for bound in load_stack(name).bounds
    ], f"write it again: PYTHONPATH=src python docs/bounds.py {name}"
    assert all(row[3] for row in rows) and "/site-packages/" not in text and "/root/" not in text
