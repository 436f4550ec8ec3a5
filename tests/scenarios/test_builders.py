"""BuildKit, Podman's service and buildah build the Dockerfile of labs to the same files.

A small image by the same Dockerfile is built here; test_whole_builds.py builds whole labs.
"""

from __future__ import annotations

import pwd
import re
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import podman_service
import pytest
import small_image
from conftest import CommandLine, made_lab, reachable_folder
from engines import Entry, needs_engine, tree, unique_name
from image_base import image_base, pin_base
from podman_service import needs_podman

from ailab import engine
from ailab.paths import MachinePaths

pytestmark = [pytest.mark.docker, pytest.mark.root, needs_engine, needs_podman]
# What an engine makes in a container of its own.
OF_ENGINE = re.compile(r"\.dockerenv|(dev|proc|run|sys)(/.*)?|etc(/(hostname|hosts|mtab|resolv\.conf))?|lab")
Tree = dict[str, Entry]


@dataclass
class Builds:
    """Builds of the small image by an account without privileges, each at the engine of its builder."""

    small: small_image.SmallImage
    service: str
    variables: dict[str, str]
    name: str
    _built: set[str] = field(default_factory=set)

    def names(self, builder: str) -> list[str]:
        return [f"ailab/{self.name}-{builder}:small-1", f"ailab/{self.name}-{builder}:latest"]

    def build(self, builder: str, *, fresh: bool = False) -> str:
        """Build the context as it is; return how that failed, empty where it did not."""
        where = {"DOCKER_HOST": self.service} if builder == "podman" else {}
        return self.small.build(builder, self.names(builder), self.variables | where, fresh=fresh)

    def ensure(self, builder: str) -> str:
        """The name of the image by this builder, which is built where it is not there."""
        if builder not in self._built:
            assert self.build(builder) == ""
            self._built.add(builder)
        return self.names(builder)[0]

    @contextmanager
    def engine_of(self, builder: str) -> Iterator[Any]:
        with closing(podman_service.client(self.service) if builder == "podman" else engine.connect()) as client:
            yield client


@pytest.fixture(scope="module")
def lab(machine_home: Path) -> Iterator[CommandLine]:
    with made_lab(machine_home, "science") as line:
        pin_base(line)
        yield line


@pytest.fixture(scope="module")
def builds(machine_home: Path, lab: CommandLine) -> Iterator[Builds]:
    nobody = pwd.getpwnam("nobody")
    with reachable_folder() as folder, podman_service.subordinate_ids(nobody.pw_name):
        small = small_image.make(folder / "small", nobody, MachinePaths(machine_home))
        with podman_service.service(folder) as service:
            made = Builds(small, service, podman_service.config(folder), unique_name("small"))
            with made.engine_of("docker") as here, made.engine_of("podman") as there:
                there.api.load_image(b"".join(here.api.get_image(image_base().reference)))
            small.write(made.name)
            yield made
        with made.engine_of("docker") as client:
            for image in client.images.list(filters={"label": f"org.ailab.lab={made.name}"}, all=True):
                client.images.remove(image.id, force=True)


@pytest.mark.parametrize("builder", ["docker", "podman", "buildah"])
def test_the_image_is_in_the_engine_by_its_names_and_runs_for_anybody(builds: Builds, builder: str) -> None:
    name = builds.ensure(builder)
    with builds.engine_of(builder) as client:
        seen, same = (client.api.inspect_image(name) for name in builds.names(builder))
        assert seen["Id"] == same["Id"]
        assert builder == "podman" or seen["Config"]["Healthcheck"]["Test"], "Podman's API does not tell"
        assert seen["Config"]["Labels"]["org.ailab.lab"] == builds.name
        assert not [tag for tag in seen["RepoTags"] if "ailab-build" in tag]
        code = "import os, cycler; print(os.getuid(), cycler.__file__, os.path.exists(cycler.__cached__))"
        script = f"tree --version && /opt/ailab/environment/bin/python -c '{code}'"
        limits = {"read_only": True, "user": "4321:4321", "cap_drop": ["ALL"], "network_mode": "none"}
        said = client.containers.run(name, [script], entrypoint=["sh", "-c"], remove=True, **limits).decode()
        assert "tree v" in said and re.search(r"4321 /opt/ailab/environment/\S+/cycler/__init__.py True", said), said


@pytest.mark.parametrize("builder", ["docker", "podman"])
def test_built_from_nothing_again_it_has_the_same_content(builds: Builds, builder: str) -> None:
    name = builds.ensure(builder)
    with builds.engine_of(builder) as client:
        before = client.api.inspect_image(name)
        assert builds.build(builder, fresh=True) == ""
        after = client.api.inspect_image(name)
        assert after["Id"] != before["Id"]
        # BuildKit gives the time of the build to the folders that a layer adds to.
        if builder == "docker":
            files = tree(client, after["Id"])
            assert _without_times(tree(client, before["Id"])) == _without_times(files)
            writable = [path for path, entry in files.items() if int(entry[1], 8) & stat.S_IWOTH and entry[0] in b"05"]
            assert all(path.split("/")[0] in ("lab", "tmp", "var", "run", "dev") for path in writable), writable
        else:
            assert after["RootFS"]["Layers"] == before["RootFS"]["Layers"]


@pytest.mark.parametrize("other", ["docker", "podman"])
def test_every_builder_makes_the_same_files(builds: Builds, other: str) -> None:
    found: list[Tree] = []
    for builder in ("buildah", other):
        name = builds.ensure(builder)
        with builds.engine_of(builder) as client:
            found.append(tree(client, name))
    here, there = (_without_times(files) if other == "docker" else files for files in found)
    different = [path for path in here.keys() | there.keys() if here.get(path) != there.get(path)]
    assert sorted(path for path in different if not OF_ENGINE.fullmatch(path)) == []


def _without_times(files: Tree) -> dict[str, Any]:
    return {path: (*entry[:4], *entry[5:]) for path, entry in files.items()}


@pytest.mark.parametrize("builder", ["docker", "buildah"])
def test_a_step_that_fails_is_told_by_each(builds: Builds, builder: str) -> None:
    builds.ensure(builder)
    builds.small.write(builds.name, version="0.0.77")
    try:
        said = builds.build(builder)
    finally:
        builds.small.write(builds.name)
    assert "comm==0.0.77" in said, said


@pytest.mark.parametrize(
    ("builder", "podman", "said"),
    [
        ("docker", True, "is Podman, which has no BuildKit"),
        ("podman", False, "is not Podman"),
        ("kaniko", False, "no builder called kaniko"),
    ],
)
def test_a_builder_that_cannot_build_here_is_refused(
    lab: CommandLine, builds: Builds, builder: str, podman: bool, said: str
) -> None:
    where = {"DOCKER_HOST": builds.service} if podman else {}
    line = replace(lab, environment=lab.environment | where)
    refused = line.run("image", "build", "--again", "--builder", builder, check=False, timeout=300)
    assert refused.returncode == 2 and said in refused.stderr, refused.stderr
