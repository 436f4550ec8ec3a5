"""The [mounts] of a lab: checked, each complaint with its line in lab.toml, and put where the lab's files are."""

from __future__ import annotations

import json

from ailab import files
from ailab.errors import UsageError
from ailab.lab import Lab
from ailab.paths import SHARED_FOLDERS
from ailab.resources import mounts
from ailab.settings_file import refusal_at


def ensure(lab: Lab) -> None:
    """Put each mount into the lab's folder, and take away those that lab.toml names no more. Raises `SettingsError` for
    the first that cannot serve. Runs as the lab's account."""
    noted = lab.paths.state / "mounts.json"
    before = files.read_json(noted) or {}
    check(lab)
    for name, path in before.items():
        if name not in lab.settings.mounts:
            mounts.take_away(lab.paths, name, str(path))
    for name, mount in lab.settings.mounts.items():
        try:
            mounts.put(lab.paths, name, mount)
        except UsageError as error:
            raise refusal_at(lab.paths.settings, ("mounts", name), error) from None
    for name in SHARED_FOLDERS:
        (lab.paths.root / name).mkdir(exist_ok=True)
    if lab.settings.mounts or before:
        files.replace(noted, json.dumps({name: mount.path for name, mount in lab.settings.mounts.items()}))


def check(lab: Lab) -> None:
    """The looking alone, which changes nothing."""
    for name, mount in lab.settings.mounts.items():
        try:
            mounts.check(mount, lab.paths)
        except UsageError as error:
            raise refusal_at(lab.paths.settings, ("mounts", name), error) from None
