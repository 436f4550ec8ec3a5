"""What tests ask of the container engine, where an engine's answers differ."""

from __future__ import annotations

from types import SimpleNamespace

from engines import bridge_address


def test_the_address_of_a_bridge_that_lists_no_gateway() -> None:
    """As Docker Engine 20.10 answers on its first start on a machine, when it has just created its bridge."""
    answer = {
        "IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}]},
        "Options": {"com.docker.network.bridge.name": "lo"},
    }
    client = SimpleNamespace(api=SimpleNamespace(inspect_network=lambda _name: answer))
    assert bridge_address(client) == "127.0.0.1"
