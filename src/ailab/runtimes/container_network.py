"""The network of a task's container: a bridge of its own, or one with its gang, private unless its ports are open.

A private network has nothing but loopback: the accounts of this machine, which reach every bridge, do not reach it, and
it leads nowhere. A container that does nothing holds it, so that it is there whichever member ends first.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from ailab.runtimes import networks
from ailab.runtimes.container import CLOSED, GANG_LABEL, OF_CONTAINER, TASK_LABEL, WHOSE_LABEL, account
from ailab.runtimes.networks import with_labels

if TYPE_CHECKING:
    from docker import DockerClient

    from ailab.runtimes.base import TaskSpec

_HOLDER_LABEL = "org.ailab.gang-network"
# More than it takes to start a container; `sleep` needs a hundredth.
_HOLDER_BYTES = 64 * 1024 * 1024


def network_of(client: DockerClient, spec: TaskSpec, name: str, labels: dict[str, str]) -> str:
    """The network for a task whose container has this name and these labels, made where it is not there; as
    `network_mode` takes it. Raises what the SDK does."""
    if not spec.gang:
        return networks.make(client, name, labels)
    gang = _of_gang(labels, spec.gang)
    if spec.open_ports:
        return networks.of_gang(client, name, gang)
    return _private(client, spec.image, f"{name}-network", gang)


def remove_network(client: DockerClient, labels: dict[str, str], gang: str) -> None:
    """Remove the network of a task whose container is gone, and its gang's where no member's container is left."""
    networks.remove_all(client, labels)
    if not gang:
        return
    of_gang = _of_gang(labels, gang)
    found = client.api.containers(all=True, filters=with_labels(of_gang))
    if not any(TASK_LABEL in one["Labels"] for one in found):
        for holder in found:
            _remove(client, holder)
        networks.remove_all(client, of_gang)


def _of_gang(labels: dict[str, str], gang: str) -> dict[str, str]:
    return {GANG_LABEL: gang, WHOSE_LABEL: labels[WHOSE_LABEL]}


def _private(client: DockerClient, image: str, name: str, labels: dict[str, str]) -> str:
    known = with_labels({**labels, _HOLDER_LABEL: "yes"})
    for holder in client.api.containers(all=True, filters=known):
        if holder["State"] == "running":
            return OF_CONTAINER + str(holder["Id"])
        _remove(client, holder)
    user, _groups = account()
    made: dict[str, Any] = client.api.create_container(
        image,
        name=name,
        entrypoint=["sleep"],
        command=["infinity"],
        healthcheck={"test": ["NONE"]},
        user=user,
        labels={**labels, _HOLDER_LABEL: "yes"},
        host_config=client.api.create_host_config(
            network_mode="none",
            restart_policy={"Name": "no"},
            log_config={"Type": "none"},
            mem_limit=_HOLDER_BYTES,
            memswap_limit=_HOLDER_BYTES,
            **CLOSED,
        ),
    )
    client.api.start(made["Id"])
    return OF_CONTAINER + str(made["Id"])


def _remove(client: DockerClient, holder: dict[str, Any]) -> None:
    from docker.errors import APIError

    with contextlib.suppress(APIError):  # another removes it at this moment
        client.api.remove_container(holder["Id"], v=True, force=True)
