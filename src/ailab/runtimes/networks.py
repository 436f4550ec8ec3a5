"""Bridges: one for each container, or for a gang with open ports, in a range of addresses that nothing here uses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ailab.engine import EngineError
from ailab.i18n import _

if TYPE_CHECKING:
    from docker import DockerClient

# Where ranges are looked for. The engine's own pools end after some thirty networks; a class is larger than that.
_POOLS = tuple(ipaddress.IPv4Network(f"10.{second}.0.0/16") for second in (233, 213, 193, 173)) + tuple(
    ipaddress.IPv4Network(f"172.{second}.0.0/16") for second in (29, 28)
)
# Eight addresses: the network's, the bridge's, the container's, the broadcast's, and some to spare.
_PREFIX = 29
# The same for 509 containers: the largest gang is smaller.
_GANG_PREFIX = 23
_TRIES = 50


def make(client: DockerClient, name: str, labels: dict[str, str], prefix: int = _PREFIX) -> str:
    """A bridge of its own for one container; returns its id.

    Two bridges cannot reach each other: the engine drops what would pass (its DOCKER-ISOLATION chains), as it does what
    comes from outside to a port that is not published. A single bridge without traffic between its containers
    (enable_icc=false) would do with fewer networks, but holds only while br_netfilter is loaded, and lets a container
    answer for another's address.
    """
    from docker.errors import APIError
    from docker.types import IPAMConfig, IPAMPool

    taken = [*_routed(), *_of_engine(client)]
    free = _free(taken, prefix)
    for _try in range(_TRIES):
        subnet = next(free, None)
        if subnet is None:
            break
        ipam = IPAMConfig(pool_configs=[IPAMPool(subnet=str(subnet))])
        try:
            return str(client.networks.create(name, driver="bridge", ipam=ipam, labels=labels).id)
        except APIError as refused:
            # Somebody else took it in this moment: another lab, or docker itself.
            if "overlaps" not in str(refused) and "conflicts" not in str(refused):
                raise
    raise EngineError(
        _("There is no range of addresses left for a container's network."),
        remedy=_("See which networks there are: docker network ls; remove those of no use: docker network prune"),
    )


def of_gang(client: DockerClient, name: str, labels: dict[str, str]) -> str:
    """The bridge that the containers of a gang have together, made by the first of them; returns its id."""
    found = client.api.networks(filters=with_labels(labels))
    return str(found[0]["Id"]) if found else make(client, name, labels, _GANG_PREFIX)


def _free(taken: list[ipaddress.IPv4Network], prefix: int) -> Iterator[ipaddress.IPv4Network]:
    for pool in _POOLS:
        # The least that can be in the way is looked at: thousands of ranges are compared with it.
        near = [network for network in taken if network.overlaps(pool)]
        for subnet in pool.subnets(new_prefix=prefix):
            if not any(subnet.overlaps(network) for network in near):
                yield subnet


def _routed() -> Iterator[ipaddress.IPv4Network]:
    """What this machine has routes to, other than the default one (proc(5), /proc/net/route: hexadecimal, the bytes of
    an address in the machine's order)."""
    try:
        lines = Path("/proc/net/route").read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        _device, address, _gateway, _flags, _count, _use, _metric, mask, *_rest = line.split()
        if int(mask, 16):
            yield ipaddress.IPv4Network((_address(address), str(_address(mask))), strict=False)


def _address(text: str) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(bytes(reversed(bytes.fromhex(text))))


def _of_engine(client: DockerClient) -> Iterator[ipaddress.IPv4Network]:
    for network in client.api.networks():
        for pool in (network.get("IPAM") or {}).get("Config") or []:
            if "." in pool.get("Subnet", ""):
                yield ipaddress.IPv4Network(pool["Subnet"], strict=False)


def remove_all(client: DockerClient, labels: dict[str, str]) -> None:
    """Remove the networks with these labels that nothing is on."""
    from docker.errors import APIError

    for network in client.api.networks(filters=with_labels(labels)):
        try:
            client.api.remove_network(network["Id"])
        except APIError:
            continue  # removed by another, or still in use: then its container's end removes it


def with_labels(labels: dict[str, str]) -> dict[str, Any]:
    return {"label": [f"{name}={value}" for name, value in labels.items()]}
