"""No login link leads to a port that another account holds."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from conftest import free_port
from strangers import NOBODY, needs_stranger, stranger_at

from ailab.errors import Conflict
from ailab.resources import ports
from ailab.waiting import TimedOut

FILE = Path("/lab/lab.toml")


def listen(address: str, *, only_ipv6: bool = True) -> socket.socket:
    if ":" not in address:
        return socket.create_server((address, 0))
    return socket.create_server((address, 0), family=socket.AF_INET6, dualstack_ipv6=not only_ipv6)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1"])
def test_our_own_listener_may_be_sent_somebody(address: str) -> None:
    with listen(address) as own:
        port = own.getsockname()[1]
        assert ports.listening_uids(address, port) == {os.geteuid()}
        ports.refuse_stranger(address, port, FILE)
        assert ports.listening_uids("127.0.0.9", port) == set(), "it listens at one address"


def test_a_listener_at_all_addresses_is_found_at_each() -> None:
    with listen("0.0.0.0") as own:
        assert ports.listening_uids("127.0.0.1", own.getsockname()[1]) == {os.geteuid()}
    with listen("::", only_ipv6=False) as own:
        port = own.getsockname()[1]
        assert ports.listening_uids("127.0.0.1", port) == ports.listening_uids("::1", port) == {os.geteuid()}


def test_a_port_at_which_nobody_listens_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "LISTEN_SECONDS", 0.1)
    with pytest.raises(TimedOut, match="web port") as late:
        ports.refuse_stranger("127.0.0.1", free_port(), FILE)
    assert "tasks/proxy/log" in late.value.remedy


@needs_stranger
@pytest.mark.root
@pytest.mark.parametrize("at", ["127.0.0.1", "0.0.0.0"])
def test_a_stranger_is_refused_by_name(at: str) -> None:
    port = free_port()
    with stranger_at(port, at) as listener:
        listener.wait_until_it_listens()
        assert ports.listening_uids("127.0.0.1", port) == {NOBODY}
        with pytest.raises(Conflict) as refused:
            ports.refuse_stranger("127.0.0.1", port, FILE)
    assert "nobody" in refused.value.message and str(FILE) in refused.value.remedy
