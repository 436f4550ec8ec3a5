"""GPUs in containers: how an engine is asked for them, what it needs for that, whether a container has lost its own.

Nothing here needs a GPU: all is read from what the engine says of itself (GET /info), and from files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ailab.engine import told

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.types import DeviceRequest

# https://github.com/cncf-tags/container-device-interface: where the descriptions of devices are, and NVIDIA's kind.
_SPEC_FOLDERS = ("etc/cdi", "var/run/cdi", "run/cdi")
_KIND = "nvidia.com/gpu"
_PROGRAMS = ("nvidia-ctk", "nvidia-container-runtime", "nvidia-container-cli")
_BIN = ("usr/bin", "usr/local/bin", "usr/local/nvidia/toolkit")
# Opening a device that the cgroup denies is EPERM, which a shell says so; a closed file mode is EACCES.
_PROBE = 'for d in /dev/nvidia[0-9]* /dev/nvidiactl; do [ ! -e "$d" ] || (: <"$d") 2>&1; done'
_DENIED = "Operation not permitted"


@dataclass(frozen=True)
class Means:
    """What this machine and its engine have for GPUs in containers.

    `toolkit`: NVIDIA's container toolkit is installed. `runtime`: the engine knows NVIDIA's runtime. `specs`: files
    that describe the GPUs for CDI. `cdi`: the engine reads such files (Docker Engine 25 and later, where it is on).
    `systemd`: the engine leaves cgroups to systemd. `configured`: daemon.json has NVIDIA's runtime or switches CDI on.
    """

    toolkit: bool
    runtime: bool
    specs: tuple[str, ...]
    cdi: bool
    systemd: bool
    configured: bool

    @property
    def by_cdi(self) -> bool:
        return self.cdi and bool(self.specs)

    @property
    def may_lose_devices(self) -> bool:
        """Whether `systemctl daemon-reload` takes GPUs away from containers that run: systemd then sets the devices
        anew that it knows of, and of those that NVIDIA's hook has let in it knows nothing
        (https://github.com/NVIDIA/nvidia-container-toolkit/issues/48)."""
        return self.systemd and not self.by_cdi


def means(info: Mapping[str, Any], system: Path = Path("/")) -> Means:
    """`info` is what the engine says of itself; `system` is where /etc, /usr and /run are."""
    daemon = _json(system / "etc/docker/daemon.json")
    return Means(
        toolkit=any((system / folder / name).exists() for folder in _BIN for name in _PROGRAMS),
        runtime="nvidia" in (info.get("Runtimes") or {}),
        specs=tuple(str(path) for folder in _SPEC_FOLDERS for path in _specs(system / folder)),
        cdi=bool(info.get("CDISpecDirs")),
        systemd=info.get("CgroupDriver") == "systemd",
        configured="nvidia" in (daemon.get("runtimes") or {}) or bool((daemon.get("features") or {}).get("cdi")),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _specs(folder: Path) -> list[Path]:
    """The files there that describe NVIDIA's GPUs; each is YAML or JSON, and names its kind."""
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml", ".json"))
        return [path for path in found if _KIND in path.read_text(encoding="utf-8", errors="replace")]
    except OSError:
        return []


def request(found: Means, ids: Sequence[str]) -> DeviceRequest:
    """How the engine is asked for the GPUs with these numbers or ids (UUID), for a container that is to be made: by
    CDI where it can, which also outlives `systemctl daemon-reload`; else as `docker run --gpus` asks."""
    from docker.types import DeviceRequest

    if found.by_cdi:
        return DeviceRequest(driver="cdi", device_ids=[f"{_KIND}={one}" for one in ids])
    return DeviceRequest(device_ids=list(ids), capabilities=[["gpu"]])


def has_lost_devices(client: DockerClient, container: str) -> bool:
    """Whether a running container has GPUs that the kernel no longer lets it open; a new container has them again."""
    with told():
        begun = client.api.exec_create(container, ["sh", "-c", _PROBE])
        said = client.api.exec_start(begun["Id"])
    return _DENIED in bytes(said).decode(errors="replace")


def lost(client: DockerClient, label: str) -> tuple[str, ...]:
    """The names of the running containers with this label (`name` or `name=value`) that have lost their GPUs."""
    with told():
        running = client.api.containers(filters={"label": label})
        with_gpus = [one for one in running if client.api.inspect_container(one["Id"])["HostConfig"]["DeviceRequests"]]
    return tuple(one["Names"][0].lstrip("/") for one in with_gpus if has_lost_devices(client, one["Id"]))
