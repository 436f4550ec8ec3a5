"""An image to run tasks in that stands on nothing but this distribution's packages: a base system with Python."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from pathlib import Path

from ailab import engine
from ailab.images import base

IMAGE = f"ailab-test/python:{base.suite()}"
_BUILD_SECONDS = 600


@functools.cache
def python_image() -> str:
    """The id of an image with /usr/bin/python3, in the engine's store. Made once, by mmdebstrap, and kept."""
    client = engine.connect()
    found = client.api.images(name=IMAGE)
    if found:
        return str(found[0]["Id"])
    packed = Path(os.environ.get("AILAB_CHECK_HOME") or tempfile.gettempdir()) / "cache" / f"python-{base.suite()}.tar"
    if not packed.exists():
        packed.parent.mkdir(parents=True, exist_ok=True)
        unfinished = packed.with_suffix(".new.tar")
        words = ["mmdebstrap", "--variant=minbase", "--include=python3", base.suite(), str(unfinished)]
        subprocess.run(words, check=True, capture_output=True, timeout=_BUILD_SECONDS)
        unfinished.rename(packed)
    repository, _colon, tag = IMAGE.rpartition(":")
    with packed.open("rb") as layers:
        client.api.import_image_from_file(layers, repository=repository, tag=tag)
    return str(client.api.images(name=IMAGE)[0]["Id"])
