"""The words a person reads, in English and Chinese: the English sentence is the key."""

from __future__ import annotations

import json
import os
from contextvars import ContextVar
from functools import cache
from pathlib import Path

LANGUAGES = ("en", "zh")
_chosen: list[str] = []
# Of the request that is being answered; empty outside of one.
_requests: ContextVar[str] = ContextVar("language", default="")


@cache
def catalogue(language: str) -> dict[str, str]:
    """English sentence -> sentence in `language`, from every file of its folder; empty for English."""
    sentences: dict[str, str] = {}
    for file in sorted((Path(__file__).parent / "translations" / language).glob("*.json")):
        sentences.update(json.loads(file.read_text(encoding="utf-8")))
    return sentences


def language_of(environ: dict[str, str] | os._Environ[str], default: str = "en") -> str:
    """`AILAB_LANG`, else the locale (LC_ALL, LC_MESSAGES, LANG, as gettext reads them), else `default`."""
    for name in ("AILAB_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = environ.get(name, "")
        if value and value.split(".")[0] not in ("C", "POSIX"):
            code = value[:2].lower()
            return code if code in LANGUAGES else "en"
    return default


def use_language(language: str | None) -> None:
    """Fix the language of this process; None goes back to the environment's."""
    _chosen[:] = [language] if language else []


def answer_in(language: str) -> None:
    """Fix the language of the request that is being answered, in its task and the threads that work for it."""
    _requests.set(language)


def current_language() -> str:
    return _requests.get() or (_chosen[0] if _chosen else language_of(os.environ))


def translate(sentence: str, language: str) -> str:
    """`sentence` in `language`, or as it is where no translation is known."""
    return catalogue(language).get(sentence, sentence)


def _(sentence: str) -> str:
    """`sentence` in this process's language. Only literals, so that the catalogue's test can find them."""
    return translate(sentence, current_language())
