"""What every runtime must hold of the network of a gang: its tasks reach each other, and nobody else reaches them."""

from __future__ import annotations

import errno
import socket
from contextlib import closing
from pathlib import Path

import psutil
from conftest import free_port
from tried_tasks import FOREVER, Specs, until

from ailab.paths import LabPaths
from ailab.runtimes.base import Runtime, TaskState
from ailab.waiting import wait_for


def gang(runtime: Runtime, spec: Specs, folder: Path, **changes: object) -> str:
    """Run a gang of two, of which the second listens on all addresses and the first asks it: what that hears."""
    site, port = runtime.site("job", LabPaths(folder)), free_port()
    place = site.open_peers if changes.get("open_ports") else site.peers
    listens = f"import socket; s = socket.create_server(('', {port})); c, _ = s.accept(); c.sendall(b'hello')"
    asks = f"""
import socket, time
for _try in range(100):
    try:
        print(socket.create_connection(({place.format(task="gang-1")!r}, {port}), 5).recv(10).decode(), flush=True)
        break
    except OSError:
        time.sleep(0.1)
"""
    runtime.start(spec(asks, id="gang-0", gang="gang", attempt=1, **changes))
    runtime.start(spec(listens, id="gang-1", gang="gang", attempt=1, **changes))
    until(runtime, TaskState.exited, "gang-0")
    return "\n".join(runtime.logs("gang-0"))


def test_a_gang_reaches_each_other(runtime: Runtime, spec: Specs, tmp_path: Path) -> None:
    assert runtime.no_private_network("job") is None
    assert gang(runtime, spec, tmp_path) == "hello"


def test_a_gang_with_open_ports_reaches_each_other(runtime: Runtime, spec: Specs, tmp_path: Path) -> None:
    assert gang(runtime, spec, tmp_path, open_ports=True) == "hello"


# Says which devices it sees and what it may do, and listens on all addresses.
LISTENS = """
import socket
s = socket.create_server(('', {port}))
with open('/proc/net/dev') as devices:
    print(*(line.split(':')[0].strip() for line in devices.readlines()[2:]))
with open('/proc/self/status') as status:
    print(*(line.split()[1] for line in status if line.startswith(('CapEff', 'CapBnd'))))
print('up')
while True: s.accept()
"""


def test_the_network_of_a_gang_is_private(runtime: Runtime, spec: Specs) -> None:
    """It has loopback alone, so nobody outside reaches it and it leads nowhere; and no capability comes with it."""
    port = free_port()
    runtime.start(spec(LISTENS.format(port=port), gang="one", attempt=1))
    wait_for(lambda: "up" in runtime.logs("one"), timeout=15, what="the task to listen")
    devices, capabilities, _up = runtime.logs("one")
    assert devices == "lo" and {int(word, 16) for word in capabilities.split()} == {0}
    addresses = {
        one.address for of_one in psutil.net_if_addrs().values() for one in of_one if one.family == socket.AF_INET
    }
    assert "127.0.0.1" in addresses
    for address in addresses:
        with closing(socket.socket()) as stranger:
            stranger.settimeout(5)
            # Not by a gateway, which may answer for any address: a bridge of another test may be gone by now.
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
            gone = errno.ENETUNREACH
            assert stranger.connect_ex((address, port)) in (errno.ECONNREFUSED, gone), address


def test_the_network_of_a_gang_outlives_each_of_its_tasks(runtime: Runtime, spec: Specs, tmp_path: Path) -> None:
    """Whichever ends first; and the next attempt has one as well."""
    place, port = runtime.site("job", LabPaths(tmp_path)).peers, free_port()
    serves = f"""
import socket
s = socket.create_server(('', {port}))
print('up')
while True: s.accept()[0].sendall(b'hello')
"""
    asks = f"import socket; print(socket.create_connection(({place!r}, {port}), 5).recv(10).decode())"
    for attempt in (1, 2):
        runtime.start(spec(FOREVER, id="gang-0", gang="gang", attempt=attempt))
        runtime.start(spec(serves, id="gang-1", gang="gang", attempt=attempt))
        ups = ["up"] * attempt
        wait_for(lambda: list(runtime.logs("gang-1")) == ups, timeout=15, what="the task to listen")  # noqa: B023
        runtime.stop("gang-0", grace=0)
        runtime.start(spec(asks, id="gang-2", gang="gang", attempt=attempt))
        until(runtime, TaskState.exited, "gang-2")
        assert list(runtime.logs("gang-2", tail=1)) == ["hello"]
        runtime.stop("gang-1", grace=0)
