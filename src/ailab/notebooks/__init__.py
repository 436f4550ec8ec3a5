"""The notebooks that a new lab starts with."""

from __future__ import annotations

import shutil
from pathlib import Path

FOLDER = Path(__file__).parent


def welcome(stack: str, language: str) -> Path:
    """The welcome notebook for a stack's family (`tensorflow-2.9` -> `tensorflow`) in a language, else in English."""
    family = stack.partition("-")[0]
    choices = [FOLDER / f"{family}.{language}.ipynb", FOLDER / f"{family}.en.ipynb", FOLDER / "science.en.ipynb"]
    return next(path for path in choices if path.exists())


def seed(notebooks: Path, stack: str, language: str) -> None:
    """Put the welcome notebook into a lab. One that is there is left as it is."""
    target = notebooks / "welcome.ipynb"
    if not target.exists():
        shutil.copyfile(welcome(stack, language), target)
