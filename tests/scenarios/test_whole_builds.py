"""Whole labs by Podman's service and by buildah, and twice by BuildKit; test_builders.py does it with a small image."""

from __future__ import annotations

import pwd
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import podman_service
import pytest
from conftest import UP_SECONDS, CommandLine, made_lab, reachable_folder
from engines import Entry, needs_engine, tree, unique_name
from podman_service import needs_podman

from ailab import engine
from ailab.settings_file import set_value
from ailab.waiting import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.long, needs_engine, needs_podman]
# What an engine makes in a container of its own.
OF_ENGINE = re.compile(r"\.dockerenv|(dev|proc|run|sys)(/.*)?|etc(/(hostname|hosts|mtab|resolv\.conf))?|lab")


# What an engine or a build makes anew each time: mount points, and the folders that a layer adds to.
TIMED = re.compile(
    r"\.dockerenv|dev(/console)?|run(/secrets)?|etc(/(hostname|hosts|mtab|resolv\.conf|nsswitch\.conf))?"
    r"|var/(cache(/uv)?|lib(/extrausers)?)|usr/local/bin(/ailab)?|lab(/[\w.]+)?"
    r"|opt/ailab/(generations(/[\w.-]+)?|image(/requirements(/control)?)?|image\.json|lab|tools/proxy-\w+(/[\w.]+)?)"
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with reachable_folder() as made:
        yield made


@pytest.fixture(scope="module")
def lab(machine_home: Path, folder: Path) -> Iterator[CommandLine]:
    with made_lab(machine_home, "science") as line:
        settings = line.paths.settings
        settings.write_text(settings.read_text().replace("system = []", 'system = ["tree"]'))
        set_value(settings, "lab", "name", unique_name("builders"))
        # Installed as the other tools are, which are compared; it would take half a minute more in every build.
        set_value(settings, "tracking", "mlflow", False)
        yield replace(line, environment=line.environment | podman_service.config(folder))


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[str]:
    with podman_service.service(folder) as address:
        yield address


@pytest.fixture(scope="module")
def with_ids(lab: CommandLine, machine_home: Path) -> Iterator[None]:
    """The lab's account has subordinate ids for a while."""
    with podman_service.subordinate_ids(pwd.getpwuid(lab.paths.state.stat().st_uid).pw_name):
        yield
    shutil.rmtree(machine_home / "cache/buildah", ignore_errors=True)


@pytest.fixture(scope="module")
def by_buildah(lab: CommandLine, with_ids: None) -> Iterator[Any]:
    built = lab.json("image", "build", "--again", "--builder", "buildah", timeout=UP_SECONDS)
    yield built
    with closing(engine.connect()) as client:
        for name in built["names"]:
            client.images.remove(name, force=True)


def test_buildah_hands_the_engine_an_image_that_is_what_the_lock_says(lab: CommandLine, by_buildah: Any) -> None:
    with closing(engine.connect()) as client:
        seen = client.api.inspect_image(by_buildah["names"][0])
        assert seen["Id"] == by_buildah["id"] and seen["Config"]["Healthcheck"]["Test"]
        assert not [tag for tag in seen["RepoTags"] if "ailab-build" in tag]
    assert lab.json("image", "verify", timeout=UP_SECONDS)["ok"]
    assert lab.json("image", "build")["new"] is False


@pytest.fixture(scope="module")
def at_podman(lab: CommandLine, by_buildah: Any, service: str) -> CommandLine:
    """The lab, with Podman for its engine, which has the base of its images."""
    dockerfile = lab.run("image", "build", "--print").stdout
    base = next(line.split()[1] for line in dockerfile.splitlines() if line.startswith("FROM"))
    with closing(engine.connect()) as client, closing(podman_service.client(service)) as second:
        second.api.load_image(b"".join(client.api.get_image(base)))
    return replace(lab, environment=lab.environment | {"DOCKER_HOST": service})


def test_podman_gives_the_same_layers_twice_and_the_same_files_as_buildah(
    by_buildah: Any, at_podman: CommandLine, service: str
) -> None:
    built = at_podman.json("image", "build", timeout=UP_SECONDS)
    assert built["new"] and at_podman.json("image", "build")["new"] is False
    again = at_podman.json("image", "build", "--again", timeout=UP_SECONDS)
    assert again["new"]
    with closing(engine.connect()) as client, closing(podman_service.client(service)) as second:
        first, newest = (second.api.inspect_image(one["id"])["RootFS"]["Layers"] for one in (built, again))
        assert first == newest
        here, there = tree(client, by_buildah["id"]), tree(second, built["id"])
        different = [path for path in here.keys() | there.keys() if here.get(path) != there.get(path)]
        assert sorted(path for path in different if not OF_ENGINE.fullmatch(path)) == []
        made = second.containers.run(built["names"][0], detach=True, read_only=True, user="4321:4321")
        wait_for(lambda: b"Proven" in made.logs() or _ended(made), timeout=120, what="the lab to be ready")
        assert not _ended(made), made.logs().decode()
        assert made.exec_run(["tree", "--version"]).exit_code == 0
        made.remove(force=True, v=True)


def _ended(made: Any) -> bool:
    made.reload()
    return bool(made.status not in ("created", "running"))


def test_a_step_that_fails_is_told_by_buildah_too(lab: CommandLine, by_buildah: Any) -> None:
    lock = lab.paths.lock
    kept = lock.read_text()
    try:
        lock.write_text(kept.replace('name = "numpy"\nversion = "', 'name = "numpy"\nversion = "0.0.'))
        failed = lab.run("image", "build", "--builder", "buildah", check=False, timeout=UP_SECONDS)
        assert failed.returncode == 1 and "numpy" in failed.stderr, failed.stderr
    finally:
        lock.write_text(kept)


@pytest.mark.tensorflow
def test_buildkit_gives_the_same_content_twice_and_no_trace_of_this_machine(machine_home: Path) -> None:
    with made_lab(machine_home, "tensorflow-2.9") as lab, closing(engine.connect()) as client:
        set_value(lab.paths.settings, "lab", "name", unique_name("twice"))
        built = lab.json("image", "build", timeout=UP_SECONDS)
        again = lab.json("image", "build", "--again", timeout=UP_SECONDS)
        try:
            before, after = tree(client, built["id"]), tree(client, again["id"])
        finally:
            for one in (built, again):
                client.images.remove(one["id"], force=True)
        assert before.keys() == after.keys()
        different = [path for path in before if before[path] != after[path]]
        assert [path for path in different if _but_for_time(before[path]) != _but_for_time(after[path])] == []
        assert sorted(path for path in different if not TIMED.fullmatch(path)) == []
        writable = [path for path, entry in after.items() if int(entry[1], 8) & stat.S_IWOTH and entry[0] in b"05"]
        assert all(path.split("/")[0] in ("lab", "tmp", "var", "run", "dev") for path in writable), writable


def _but_for_time(entry: Entry) -> tuple[Any, ...]:
    return (*entry[:4], *entry[5:])
