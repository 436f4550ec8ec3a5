"""The generated reference pages say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"
AGAIN = "the page is not what the code says; write it again: PYTHONPATH=src python docs/generate.py"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cli.md", "lab-toml.md"])
def test_a_page_is_what_the_code_says(name: str) -> None:
    path = DOCS / "reference" / name
    assert path.read_text(encoding="utf-8") == generator().pages()[path], AGAIN


@pytest.mark.parametrize("surroundings", [{"COLUMNS": "30"}, {"AILAB_LANG": "zh"}, {"LC_ALL": "zh_CN.UTF-8"}])
def test_neither_width_nor_language_changes_them(monkeypatch: pytest.MonkeyPatch, surroundings: dict[str, str]) -> None:
    before = generator().pages()
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    assert generator().pages() == before
