"""Every sentence that a person reads exists in Chinese, keeps its placeholders, and none is kept for nobody."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

from ailab.i18n import catalogue
from ailab.settings import Settings

SOURCE = Path(__file__).parents[2] / "src" / "ailab"
_IN_TEMPLATE = re.compile(r"""_\((['"])(.+?)\1\)""")
_PLACEHOLDER = re.compile(r"\{\w+(?::\w+)?\}")


def said_by_code() -> set[str]:
    said = set()
    for module in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("_", "pages.say") and node.args:
                said |= {part.value for part in node.args if isinstance(part, ast.Constant)}
    return said


def said_by_templates() -> set[str]:
    texts = (page.read_text(encoding="utf-8") for page in SOURCE.glob("*/templates/*.html"))
    return {found[1] for text in texts for found in _IN_TEMPLATE.findall(text)}


def said_by_settings() -> set[str]:
    tables = Settings.tables()
    fields = [field for name, field in Settings.model_fields.items() if name not in tables]
    fields += [field for model in tables.values() for field in model.model_fields.values()]
    return {str(field.description) for field in fields}


def test_no_sentence_is_missing_or_left_over() -> None:
    said = said_by_code() | said_by_templates() | said_by_settings()
    known = catalogue("zh")
    assert sorted(said - set(known)) == []
    assert sorted(set(known) - said) == []


def test_placeholders_are_the_same() -> None:
    for english, chinese in catalogue("zh").items():
        assert sorted(_PLACEHOLDER.findall(english)) == sorted(_PLACEHOLDER.findall(chinese)), english


def test_no_sentence_is_translated_twice() -> None:
    files = sorted((SOURCE / "translations/zh").glob("*.json"))
    sentences = [sentence for file in files for sentence in json.loads(file.read_text(encoding="utf-8"))]
    assert len(sentences) == len(set(sentences))
