"""What uv is told of packages that are built against what is installed beside them."""

from __future__ import annotations

import tomllib
from pathlib import Path

from ailab.environments import builds
from ailab.environments.lock import Lock
from ailab.environments.lock_file import Package
from ailab.stacks import load_stack


def lock(*pins: tuple[str, str]) -> Lock:
    packages = tuple(Package(name, version, "", ("sha256:" + "0" * 64,)) for name, version in pins)
    return Lock("tensorflow-2.9", "", (), packages)


def test_a_package_that_the_stack_knows_is_built_against_the_rest_of_the_lock(tmp_path: Path) -> None:
    stack = load_stack("tensorflow-2.9")
    file = builds.settings(stack, lock(("horovod", "0.28.1"), ("tensorflow", "2.9.3")), tmp_path / "uv.toml")
    assert file is not None
    told = tomllib.loads(file.read_text())
    assert told["extra-build-dependencies"] == {"horovod": ["tensorflow==2.9.3"]}
    assert told["extra-build-variables"]["horovod"]["HOROVOD_WITH_TENSORFLOW"] == "1"


def test_where_there_is_none_uv_is_told_nothing(tmp_path: Path) -> None:
    stack = load_stack("tensorflow-2.9")
    assert builds.settings(stack, lock(("tensorflow", "2.9.3")), tmp_path / "uv.toml") is None
    assert not list(tmp_path.iterdir())
