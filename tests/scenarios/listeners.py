"""What processes listen on, as ss(8) shows it, in any network namespace; whether that is documented; who gets in."""

from __future__ import annotations

import ipaddress
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from conftest import CHECKOUT, CommandLine

from ailab.settings_file import load_settings

# proc(5), /proc/net/tcp and udp: a TCP socket that listens, a UDP socket that is bound.
_STATES = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
_CONNECTS = """
import os, socket, sys
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for word in sys.argv[1:]:
    host, _, port = word.rpartition(':')
    with socket.socket() as stranger:
        stranger.settimeout(3)
        # A bridge may be gone by now: its address is not to be looked for behind a gateway, which may answer for any.
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
        if stranger.connect_ex((host, int(port))) == 0: print(word)
"""


@dataclass(frozen=True)
class Listener:
    """A port of a process: of which task that is (its mark; empty for the daemon), its command, `tcp` or `udp`, and
    whether it is in the network that this machine's other programs have."""

    task: str
    command: str
    protocol: str
    address: str
    port: int
    here: bool


def listeners(processes: Iterable[psutil.Process]) -> list[Listener]:
    ours = Path("/proc/self/ns/net").stat().st_ino
    found = []
    for process in processes:
        try:
            here = Path(f"/proc/{process.pid}/ns/net").stat().st_ino == ours
            inodes = set(_sockets(process.pid))
            of_task = process.environ().get("AILAB_TASK", ""), " ".join(process.cmdline())
            found += [Listener(*of_task, *place, here) for inode, *place in _bound(process.pid) if inode in inodes]
        except (FileNotFoundError, psutil.Error):  # it has ended
            continue
    return found


def _sockets(pid: int) -> Iterator[str]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            kind, _colon, inode = str(descriptor.readlink()).partition(":")
        except FileNotFoundError:
            continue
        if kind == "socket":
            yield inode.strip("[]")


def _bound(pid: int) -> Iterator[tuple[str, str, str, int]]:
    for name, state in _STATES.items():
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == state:
                address, _colon, port = fields[1].partition(":")
                yield fields[9], name[:3], _address(address), int(port, 16)


def _address(text: str) -> str:
    """Each four bytes are a number of the machine's order."""
    words = [bytes.fromhex(text[place : place + 8]) for place in range(0, len(text), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return str(ipaddress.ip_address(packed))


def addresses_of_this_machine() -> list[str]:
    of_all = [one for of_one in psutil.net_if_addrs().values() for one in of_one]
    return sorted({one.address for one in of_all if one.family == socket.AF_INET})


def reached_by_a_stranger(ports: Iterable[int]) -> set[int]:
    """The ports that another account of this machine connects to, at whichever of its addresses."""
    places = [f"{address}:{port}" for address in addresses_of_this_machine() for port in ports]
    words = [sys.executable, "-c", _CONNECTS, *places]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    return {int(word.rpartition(":")[2]) for word in done.stdout.split()}


def documented() -> dict[str, str]:
    """The table of the architecture page: who listens, and where."""
    text = (CHECKOUT / "docs/explanation/architecture.md").read_text()
    (section,) = re.findall(r"## What listens\n(.*?)\n## ", text, re.DOTALL)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return {who: where for who, where, _gets_in in rows[2:]}


def who(listener: Listener, open_ports: bool) -> str:
    """The row of the table for a process: it carries the mark of its task, and so does all that it starts."""
    if "ipykernel_launcher" in listener.command:
        return "kernel"
    if re.match(r"job-\d+-", listener.task):
        return "gang, `--insecure-ports`" if open_ports else "gang"
    return "workspace" if listener.task.startswith("workspace-") else listener.task.rpartition("-")[0] or "daemon"


def undocumented(lab: CommandLine, found: list[Listener], *, open_ports: bool = False) -> list[str]:
    """Each port that is not in the table, or not as it is there."""
    rows, bind, wrong = documented(), load_settings(lab.paths.settings).access.bind, []
    for one in found:
        name = who(one, open_ports)
        where = rows.get(name, "nowhere")
        addresses = [address for text, address in (("127.0.0.1", "127.0.0.1"), ("access.bind", bind)) if text in where]
        is_there = one.address in addresses or "all addresses" in where
        if not is_there or one.protocol.upper() not in where or one.here == ("private" in where):
            wrong.append(f"{name}: {one}; documented: {where}")
    return wrong
