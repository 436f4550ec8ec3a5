"""The base of images, bootstrapped for real from Debian's packages."""

from __future__ import annotations

import os
import shutil
from typing import Any
from urllib.parse import urlsplit

import pytest
from engines import needs_engine, tree

from ailab import engine
from ailab.images import base

pytestmark = [
    pytest.mark.docker,
    needs_engine,
    pytest.mark.skipif(
        shutil.which("mmdebstrap") is None or os.geteuid() != 0,
        reason="the base image is not tested: it needs root and mmdebstrap (apt-get install mmdebstrap)",
    ),
]


def test_two_bases_of_the_same_packages_are_the_same_and_say_nothing_of_this_machine() -> None:
    client: Any = engine.connect()
    told: list[str] = []
    first, second = (base.bootstrap(client, "", told.append) for _again in range(2))
    assert first == second and told
    assert base.find(client, first.digest) == first.reference
    assert base.find(client, f"sha256:{'0' * 64}") is None
    assert {"tini", "ca-certificates", "libnss-extrausers", "apt"} <= first.apt.keys()
    seen = client.api.inspect_image(first.reference)
    assert seen["RootFS"]["Layers"] == [first.digest]
    files = tree(client, first.reference)
    assert not [
        path for path in files if path.endswith(".deb") or "dists_bookworm" in path or path.endswith("dpkg.log")
    ]
    made = client.containers.run(first.reference, ["cat", "/etc/machine-id", "/etc/apt/sources.list"], remove=True)
    assert made.decode() == "deb http://deb.debian.org/debian bookworm main\n"
    hosts = {urlsplit(value).hostname or "" for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    said = client.containers.run(
        first.reference, ["sh", "-c", "cat /etc/apt/apt.conf.d/* /etc/environment 2>/dev/null || :"], remove=True
    ).decode()
    assert not [host for host in hosts if host and host in said]
