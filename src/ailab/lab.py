"""One lab, wired: its settings, paths, store and runtime. It knows everything and does nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ailab.client import Client
from ailab.paths import LabPaths, MachinePaths, private_folder
from ailab.settings import Settings
from ailab.settings_file import load_settings

if TYPE_CHECKING:
    from ailab.environments.generations import Generations
    from ailab.runtimes.base import Runtime
    from ailab.store import Store


@dataclass(frozen=True)
class Lab:
    """What belongs to one lab. The parts are made when they are first asked for."""

    paths: LabPaths
    machine: MachinePaths
    settings: Settings

    @classmethod
    def open(cls, root: Path) -> Lab:
        """The lab at `root`. Raises `SettingsError` when its lab.toml cannot be meant."""
        paths = LabPaths(root)
        return cls(paths, MachinePaths.from_environment(os.environ), load_settings(paths.settings))

    def make_private_folders(self) -> None:
        for folder in self.paths.private_folders:
            private_folder(folder)

    @cached_property
    def client(self) -> Client:
        return Client(self.paths.daemon_socket)

    @cached_property
    def runtime(self) -> Runtime:
        from ailab.runtimes.registry import make_runtime

        return make_runtime(self.settings.lab.runtime, self.paths.tasks)

    @cached_property
    def generations(self) -> Generations:
        from ailab.environments.generations import Generations

        return Generations(self.machine, self.paths)

    @cached_property
    def store(self) -> Store:
        from ailab.store import Store

        return Store(self.paths.database)
