"""While an image is built nothing listens that is not documented."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from conftest import UP_SECONDS, CommandLine
from engines import needs_engine
from listeners import listeners, undocumented
from rooms import processes_of

from ailab import engine

pytestmark = [pytest.mark.lab, pytest.mark.docker, needs_engine]


def test_while_an_image_is_built_only_what_is_documented_listens(science: CommandLine) -> None:
    science.up()
    built: list[Any] = []
    building = threading.Thread(target=lambda: built.append(science.json("image", "build", timeout=UP_SECONDS)))
    building.start()
    wrong: set[str] = set()
    while building.is_alive():
        wrong |= set(undocumented(science, listeners(processes_of(science))))
        building.join(0.5)
    assert built, "the build failed"
    for name in built[0]["names"]:
        engine.connect().api.remove_image(name, force=True)
    assert wrong == set()
