"""The base of images from a real registry, pinned by its digest, and the Debian packages that go on top of it."""

from __future__ import annotations

import contextlib
import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest
from conftest import CommandLine, made_lab, reachable_folder
from engines import bridge_address, needs_engine, unique_name
from python_image import python_image
from registries import PASSWORD, USER, Registry, kept_store, needs_registry, registry

from ailab import engine
from ailab.environments.lock import read_lock
from ailab.environments.lock_file import Image

pytestmark = [pytest.mark.docker, pytest.mark.root, needs_engine, needs_registry]
_LOGIN = {"username": USER, "password": PASSWORD}


@pytest.fixture(scope="module")
def client() -> Any:
    return engine.connect()


@pytest.fixture(scope="module")
def served(client: Any) -> Iterator[Registry]:
    """A registry with a Debian, `debian:slim`."""
    with reachable_folder() as folder, registry(folder, bridge_address(client), kept_store()) as one:
        one.trust()
        push(client, one, python_image(), "debian:slim")
        try:
            yield one
        finally:
            for image in client.api.images(filters={"reference": f"{one.host}/*"}):
                named = (*(image["RepoTags"] or ()), *(image["RepoDigests"] or ()))
                for name in (name for name in named if name.startswith(one.host)):
                    # With its last tag a repository loses its digests.
                    with contextlib.suppress(docker.errors.ImageNotFound):
                        client.api.remove_image(name, noprune=True)


def push(client: Any, one: Registry, image: str, name: str) -> None:
    """Push an image, and leave the registry alone with it."""
    path, _colon, tag = name.partition(":")
    client.api.tag(image, f"{one.host}/{path}", tag)
    said = client.api.push(f"{one.host}/{path}", tag=tag, auth_config=_LOGIN)
    assert '"error"' not in said, said
    client.api.remove_image(f"{one.host}/{name}", noprune=True)


@pytest.fixture
def lab(machine_home: Path, served: Registry) -> Iterator[CommandLine]:
    with made_lab(machine_home, "science") as line:
        password = line.lab.parent / "password"
        password.write_text(f"{PASSWORD}\n")
        login = {"AILAB_REGISTRY_USER": USER, "AILAB_REGISTRY_PASSWORD_FILE": str(password)}
        yield replace(line, environment=line.environment | login)


def ask(lab: CommandLine, base: str, system: str) -> None:
    settings = lab.paths.settings
    text = re.sub(r"(?m)^base = \S*", f'base = "{base}"', settings.read_text())
    settings.write_text(re.sub(r"(?m)^system = \[[^]]*\]", f"system = {system}", text))


def dockerfile(lab: CommandLine) -> str:
    return lab.run("image", "build", "--print", timeout=600).stdout


def pinned(lab: CommandLine) -> Image:
    locked = read_lock(lab.paths.lock)
    assert locked is not None and locked.image is not None
    return locked.image


def test_a_base_is_pinned_by_its_digest_whatever_its_tag_means_later(
    lab: CommandLine, served: Registry, client: Any
) -> None:
    name = f"{served.host}/debian:slim"
    ask(lab, name, '["tree"]')
    first = dockerfile(lab)
    image = pinned(lab)
    assert image.reference == name and f"FROM {served.host}/debian@{image.base} AS " in first
    assert {"tini", "libnss-extrausers", "tree"} <= image.added.keys() and "python3" in image.apt
    assert f"tree={image.added['tree']}" in first and f"tini={image.added['tini']}" in first

    newer = client.api.create_container(python_image(), ["true"])["Id"]
    committed = client.api.commit(newer, changes="LABEL newer=1")["Id"]
    client.api.remove_container(newer)
    push(client, served, committed, "debian:slim")
    client.api.remove_image(f"{served.host}/debian@{image.base}", noprune=True)
    assert dockerfile(lab) == first and pinned(lab) == image, "it came back by its digest"

    lab.run("image", "base", timeout=600)
    assert pinned(lab).base != image.base and pinned(lab).added == image.added
    ask(lab, name, "[]")
    assert "tree=" not in dockerfile(lab) and "tree" not in pinned(lab).added


def test_a_debian_package_that_there_is_not_is_refused_with_its_line(lab: CommandLine, served: Registry) -> None:
    ask(lab, f"{served.host}/debian:slim", '["no-such-package"]')
    refused = lab.run("image", "build", check=False, timeout=600)
    assert refused.returncode == 2 and "no package no-such-package" in refused.stderr, refused.stderr
    assert re.search(r"lab\.toml:\d+: environment\.system", refused.stderr)


@pytest.mark.parametrize(
    ("base", "status", "said"),
    [("other:1", 2, "is not a Debian or an Ubuntu, but Other 1"), ("missing:1", 1, "has no {host}/missing:1")],
)
def test_a_base_that_will_not_do_is_named(
    lab: CommandLine, served: Registry, client: Any, base: str, status: int, said: str
) -> None:
    other = not_a_debian(client)
    push(client, served, other, "other:1")
    client.api.remove_image(other)
    ask(lab, f"{served.host}/{base}", "[]")
    refused = lab.run("image", "build", check=False, timeout=300)
    assert refused.returncode == status and said.format(host=served.host) in refused.stderr, refused.stderr


def not_a_debian(client: Any) -> str:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        text = b'ID=other\nPRETTY_NAME="Other 1"\n'
        info = tarfile.TarInfo("usr/lib/os-release")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    name = f"ailab-test/{unique_name('other')}"
    client.api.import_image_from_data(layer.getvalue(), repository=name, tag="1")
    return f"{name}:1"


def test_the_doctor_names_what_the_machine_lacks(lab: CommandLine) -> None:
    ask(lab, "", '["no-such-package", "libc6"]')
    findings = {one["name"]: one for one in lab.json("doctor", timeout=300)["checks"]}
    assert "no-such-package" in str(findings["debian-packages"]) and "libc6." not in str(findings["debian-packages"])
