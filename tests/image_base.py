"""The base of images for tests: bootstrapped once a week on a machine, and pinned in the locks of labs that build."""

from __future__ import annotations

import datetime
import functools
import hashlib
import inspect
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from conftest import CommandLine

from ailab import engine, files
from ailab.environments.lock import read_lock
from ailab.environments.lock_file import Image
from ailab.images import base
from ailab.images.base import Base


@functools.cache
def image_base() -> Base:
    """Return a base in the engine's store. The week is in its key: Debian's packages move on."""
    source = inspect.getsource(base) + datetime.date.today().strftime("%G-%V")
    key = hashlib.sha256(source.encode()).hexdigest()[:12]
    note = Path(os.environ.get("AILAB_CHECK_HOME") or tempfile.gettempdir()) / "cache" / f"image-base-{key}.json"
    client, known = engine.connect(), files.read_json(note)
    if known is not None and base.find(client, known["digest"]):
        return Base(base.reference_of(known["digest"]), known["digest"], known["apt"])
    made = base.bootstrap(client, "", lambda _text: None)
    note.parent.mkdir(parents=True, exist_ok=True)
    files.replace(note, json.dumps({"digest": made.digest, "apt": made.apt}))
    return made


def pin_base(lab: CommandLine) -> None:
    """Have the lab's images stand on `image_base`: no registry is asked for one, and nothing is bootstrapped."""
    lab.run("env", "lock", timeout=300)
    locked, made = read_lock(lab.paths.lock), image_base()
    assert locked is not None
    # In place: the file stays the account's.
    lab.paths.lock.write_text(replace(locked, image=Image(made.digest, made.apt)).text(), encoding="utf-8")
