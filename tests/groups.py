"""Groups for pytest-xdist: tests that share something expensive run in one worker, the longest groups first.

pytest-xdist 3.8's own `loadgroup` silently ignores the groups under pytest 9.2 (pytest-xdist#1386): it keeps them in
the names of tests, which can no longer be changed. Here each worker writes them to a file for the scheduling process.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# A marker or a fixture decides. The longest groups start first, and the rest fills the gaps.
_MARKED = ("docker", "serial")
_LABS = {"tensorflow_up": "tensorflow", "science_up": "science"}
_LONGEST = ("docker", "tensorflow", "science")
_SHARED = ("module", "package", "class")
_FILE = pytest.StashKey[Path]()
_INPUT = "ailab_groups"


def group_of(item: pytest.Item) -> str | None:
    """The group that a test has to run in; None where any worker may take it."""
    for name in _MARKED:
        if item.get_closest_marker(name):
            return name
    used = getattr(item, "fixturenames", ())
    for fixture, name in _LABS.items():
        if fixture in used:
            return name
    definitions = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    if any(definitions[name][-1].scope in _SHARED for name in used if name in definitions):
        return item.nodeid.partition("::")[0]
    return None


def _rank(item: pytest.Item, group: str | None) -> int:
    if group in _LONGEST:
        return _LONGEST.index(group)
    starts_much = any(item.get_closest_marker(name) for name in ("lab", "tensorflow", "browser"))
    return len(_LONGEST) + (0 if starts_much else 1)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    groups = {item: group_of(item) for item in items}
    items.sort(key=lambda item: _rank(item, groups[item]))
    inputs = getattr(config, "workerinput", None)
    if inputs is not None and inputs.get(_INPUT):
        file = Path(inputs[_INPUT])
        part = file.with_name(f"{file.name}.{inputs['workerid']}")
        part.write_text(json.dumps({item.nodeid: group for item, group in groups.items() if group}))
        part.replace(file)


class GroupScheduling(LoadScopeScheduling):
    """One group, one worker; what is in no group goes to whoever has nothing to do."""

    def schedule(self) -> None:
        self._groups = read_groups(self.config)
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        return self._groups.get(nodeid, nodeid)


def read_groups(config: pytest.Config) -> dict[str, str]:
    """The group of each test that has one, once the tests are collected; nothing where there are no workers."""
    file = config.stash.get(_FILE, None)
    found: dict[str, str] = json.loads(file.read_text()) if file is not None and file.exists() else {}
    return found


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and config.getoption("numprocesses", None):
        folder = Path(tempfile.mkdtemp(prefix="ailab-check-"))
        config.stash[_FILE] = folder / "groups.json"


def pytest_unconfigure(config: pytest.Config) -> None:
    if _FILE in config.stash:
        config.stash[_FILE].unlink(missing_ok=True)
        config.stash[_FILE].parent.rmdir()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput[_INPUT] = str(node.config.stash[_FILE])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling | None:
    return GroupScheduling(config, log) if config.getoption("dist") == "loadgroup" else None
