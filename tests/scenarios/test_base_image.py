"""The base of images, bootstrapped for real from Debian's packages."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import CommandLine, made_lab
from engines import needs_engine, tree
from image_base import image_base

from ailab import bases, engine
from ailab.environments.lock import read_lock
from ailab.environments.lock_file import Image
from ailab.images import base
from ailab.settings_file import set_value

pytestmark = [
    pytest.mark.docker,
    needs_engine,
    pytest.mark.skipif(
        shutil.which("mmdebstrap") is None or os.geteuid() != 0,
        reason="the base image is not tested: it needs root and mmdebstrap (apt-get install mmdebstrap)",
    ),
]


def pinned(lab: CommandLine) -> Image:
    locked = read_lock(lab.paths.lock)
    assert locked is not None and locked.image is not None
    return locked.image


def test_two_bases_of_the_same_packages_are_the_same_and_say_nothing_of_this_machine(machine_home: Path) -> None:
    client: Any = engine.connect()
    first = image_base()
    kept = client.api.inspect_image(first.reference)["Id"]
    with made_lab(machine_home, "science") as lab:
        said = lab.run("image", "base", timeout=600).stderr
        if pinned(lab).reference:  # the default, from a registry that can be reached from here
            set_value(lab.paths.settings, "image", "base", bases.BOOTSTRAP)
            said = lab.run("image", "base", timeout=600).stderr
        assert "Making the base image" in said, said
        second = pinned(lab)
    if second.apt != first.apt:  # Debian's packages have moved on since the first was made
        first = base.bootstrap(client, "", lambda _text: None)
    else:
        assert client.api.inspect_image(first.reference)["Id"] == kept, "it leaves no nameless copy"
    assert second.base == first.digest and second.apt == first.apt
    assert base.find(client, first.digest) == first.reference
    assert base.find(client, f"sha256:{'0' * 64}") is None
    assert {"tini", "ca-certificates", "libnss-extrausers", "apt"} <= first.apt.keys()
    seen = client.api.inspect_image(first.reference)
    assert seen["RootFS"]["Layers"] == [first.digest]
    files = tree(client, first.reference)
    assert not [
        path for path in files if path.endswith(".deb") or f"dists_{base.suite()}" in path or path.endswith("dpkg.log")
    ]
    made = client.containers.run(first.reference, ["cat", "/etc/machine-id", "/etc/apt/sources.list"], remove=True)
    assert made.decode() == f"deb http://deb.debian.org/debian {base.suite()} main\n"
    hosts = {urlsplit(value).hostname or "" for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    said = client.containers.run(
        first.reference, ["sh", "-c", "cat /etc/apt/apt.conf.d/* /etc/environment 2>/dev/null || :"], remove=True
    ).decode()
    assert not [host for host in hosts if host and host in said]
