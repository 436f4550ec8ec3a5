"""A task as the engine's API takes it: how the container of a specification is made, and how closed it is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ailab import engine_gpus
from ailab.engine import socket_path
from ailab.runtimes.base import Mount, TaskSpec
from ailab.runtimes.limits import thread_variables

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.types import DeviceRequest

# Processes and threads: no task of ours comes near it, and a fork bomb ends there.
PIDS = 4096
SHM_BYTES = 64 * 1024 * 1024
# What a container of ours may write to in its own root; the rest of that is read-only.
_TEMPORARY = {"/tmp": "rw,exec,nosuid,nodev,mode=1777"}  # noqa: S108  in the container
# What no container of ours has: a root that it may write to, capabilities, and a way to more of them.
CLOSED: dict[str, Any] = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}
# The label of a container that runs a task: the task's id.
TASK_LABEL = "org.ailab.task"
# The label of all that is of one folder of tasks: which folder.
WHOSE_LABEL = "org.ailab.tasks"
# How the engine names the network of another container.
OF_CONTAINER = "container:"
# The label of what belongs to a gang: its name.
GANG_LABEL = "org.ailab.gang"
# Who a container runs as where that would be root: nobody.
_NOBODY = "65534:65534"


def account() -> tuple[str, list[str]]:
    """Who a container runs as, never root, and the groups beside its own: as this process, without the engine's group.
    What the lab's account may read and write outside, it may inside."""
    if os.geteuid() == 0:
        return _NOBODY, []
    socket = socket_path()
    kept_out = {0, os.getegid()}
    if socket is not None and socket.exists():
        kept_out.add(socket.stat().st_gid)
    return f"{os.geteuid()}:{os.getegid()}", [str(group) for group in os.getgroups() if group not in kept_out]


def make(
    client: DockerClient,
    spec: TaskSpec,
    *,
    name: str,
    labels: dict[str, str],
    network: str,
    published: dict[str, int],
) -> str:
    """Make the container, not started yet; returns its id. `network` is an id, or `container:ID`. `published` has
    the ports of this machine that it is to get again; for the others the engine chooses.

    Raises what the SDK does.
    """
    user, groups = account()
    ports = [port for port in spec.ports if isinstance(port, int)]
    host = client.api.create_host_config(
        network_mode=network,
        port_bindings={port: ("127.0.0.1", published.get(str(port))) for port in ports},
        mounts=[_bind(mount) for mount in spec.mounts if mount.source],
        tmpfs=_TEMPORARY | {mount.target: _own_folder(user) for mount in spec.mounts if not mount.source},
        init=True,
        **CLOSED,
        group_add=groups,
        ipc_mode="private",
        restart_policy={"Name": "no"},
        log_config={"Type": "json-file", "Config": {"max-size": str(spec.log_bytes), "max-file": "2"}},
        shm_size=spec.shm_bytes or SHM_BYTES,
        pids_limit=spec.pids or PIDS,
        # As much with swap as without: no swap.
        **({"mem_limit": spec.memory_bytes, "memswap_limit": spec.memory_bytes} if spec.memory_bytes else {}),
        **({"nano_cpus": spec.cpus * 10**9} if spec.cpus else {}),
        **({"device_requests": [_gpus(client, spec.gpus)]} if spec.gpus else {}),
    )
    made: dict[str, Any] = client.api.create_container(
        spec.image,
        name=name,
        # As the entry point, so that the image's own says nothing of it; nor does its health check.
        entrypoint=list(spec.command),
        command=[],
        healthcheck={"test": ["NONE"]},
        # TERM goes to all of the task, as it does outside: docker-init is tini, which reads this.
        environment=thread_variables(spec.cpus) | spec.environment | {"TINI_KILL_PROCESS_GROUP": "1"},
        working_dir=spec.cwd,
        user=user,
        ports=ports,
        labels=labels,
        host_config=host,
        **({} if network.startswith(OF_CONTAINER) else _named(client, spec, network)),
    )
    return str(made["Id"])


def outside(mounts: Iterable[Mount], inside: str) -> str | None:
    """Where on this machine the file is that a container sees at `inside`; None where that is the container's own."""
    for mount in sorted(mounts, key=lambda one: len(one.target), reverse=True):
        if Path(inside).is_relative_to(mount.target):
            return str(Path(mount.source) / Path(inside).relative_to(mount.target)) if mount.source else None
    return None


def _named(client: DockerClient, spec: TaskSpec, network: str) -> dict[str, Any]:
    """Return the container's name on a network; its gang finds it there by its task id."""
    endpoint = client.api.create_endpoint_config(aliases=[spec.id])
    return {
        "hostname": spec.name[:63],
        "networking_config": client.api.create_networking_config({network: endpoint}),
    }


def _bind(mount: Mount) -> Any:
    from docker.types import Mount as EngineMount

    return EngineMount(mount.target, mount.source, type="bind", read_only=mount.read_only)


def _own_folder(user: str) -> str:
    uid, _colon, gid = user.partition(":")
    return f"rw,nosuid,nodev,mode=0700,uid={uid},gid={gid}"


def _gpus(client: DockerClient, gpus: tuple[str, ...]) -> DeviceRequest:
    return engine_gpus.request(engine_gpus.means(client.info()), gpus)
