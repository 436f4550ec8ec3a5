"""The line that runs a lab's image: a pure function from the lab's settings to what a person types."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from ailab.images.dockerfile import WEB_PORT
from ailab.paths import IMAGE_LAB
from ailab.settings import Mount, Settings

_MIB = 1024**2


def words(
    settings: Settings, container: str, image: str, account: tuple[int, int], mounts: Mapping[str, Mount], *, gpus: bool
) -> list[list[str]]:
    """The words of `docker run`, those that belong together in one list.

    `account` is the uid and gid that the container runs as; `mounts` are folders by their name in the lab; `gpus` says
    whether there are some.
    """
    resources, access = settings.resources, settings.access
    limits: list[str] = []
    if resources.memory:
        memory = _mib(resources.memory)
        limits += ["--memory", memory, "--memory-swap", memory]
    if resources.cpus:
        limits += ["--cpus", str(resources.cpus)]
    host = f"[{access.bind}]" if ":" in access.bind else access.bind
    return [
        ["docker", "run", "--detach", "--name", container, "--restart", "unless-stopped"],
        ["--user", f"{account[0]}:{account[1]}", "--read-only", "--tmpfs", "/tmp:exec,mode=1777"],  # noqa: S108
        ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"],
        [*limits, "--shm-size", _mib(resources.shm), "--pids-limit", str(resources.pids)],
        *([["--gpus", _gpus(resources.gpus)]] if gpus and resources.gpus else []),
        ["--publish", f"{host}:{access.port}:{WEB_PORT}"],
        ["--volume", f"{container}:{IMAGE_LAB}"],
        *(["--volume", _volume(name, mount)] for name, mount in mounts.items()),
        [image],
    ]


def _mib(size: int) -> str:
    return f"{-(-size // _MIB)}m"


def _gpus(wanted: str | list[str]) -> str:
    """The engine's own way to say it: a list of devices is quoted once more, for its comma."""
    return wanted if isinstance(wanted, str) else f'"device={",".join(wanted)}"'


def _volume(name: str, mount: Mount) -> str:
    return f"{mount.path}:{IMAGE_LAB / name}" + (":ro" if mount.read_only else "")


def text(groups: Sequence[Sequence[str]]) -> str:
    """The command over as many lines as it has groups, to be pasted into a shell."""
    return " \\\n  ".join(shlex.join(group) for group in groups)
