"""Who holds a TCP port: before we ask for it, and before somebody is sent there."""

from __future__ import annotations

import errno
import os
import pwd
import random
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from pathlib import Path

import psutil

from ailab.errors import Conflict
from ailab.i18n import _
from ailab.waiting import TimedOut, wait_for

LISTEN_SECONDS = 10.0
_LISTEN = "0A"
# Above what services are usually found at.
_FIRST = 20_000
_EPHEMERAL = 32_768


def is_free(address: str, port: int) -> bool:
    """Whether nobody listens there. Raises OSError for an address that this machine does not have, and for a port that
    this account may not have."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def free_port(address: str, after: int) -> int:
    """The first port above `after` that is free; `after` itself where there is none."""
    return next((port for port in range(after + 1, min(after + 200, 65536)) if is_free(address, port)), after)


def free_ports(address: str, count: int) -> list[int]:
    """That many different ports which nobody listens on now, below those that the system gives out by itself (ip(7),
    ip_local_port_range): so nobody gets one by chance before who is told of it listens there."""
    try:
        end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        end = _EPHEMERAL
    candidates = range(_FIRST, end) if end - _FIRST > 100 * count else range(_FIRST, 65536)
    chosen = random.sample(candidates, len(candidates))
    found = list(islice((port for port in chosen if is_free(address, port)), count))
    if len(found) < count:
        raise Conflict(
            _("There are not {count} free ports.").format(count=count), remedy=_("See who has them: ss -ltnp")
        )
    return found


def holder_pid(port: int) -> int | None:
    """The process that listens on `port`, if it is one that this account may look into."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            return int(connection.pid)
    return None


def holder(port: int) -> str:
    """Who listens on `port`, as far as this account can see: program, pid and account; else the account; else ``."""
    pid = holder_pid(port)
    if pid is not None:
        try:
            process = psutil.Process(pid)
            return f"{process.name()} (pid {pid}, {process.username()})"
        except psutil.Error:
            return f"pid {pid}"
    uid = _listening_uid(port)
    return "" if uid is None else _account(uid)


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def refuse_stranger(address: str, port: int, file: Path) -> None:
    """Make sure that it is this account that listens where a connection to `address` arrives, before a browser is sent
    there with a login. A proxy that is just starting is waited for. `file` has the port as a setting.

    Raises `Conflict` where another account listens, and `TimedOut` where nobody does.
    """

    def listening() -> set[int]:
        return listening_uids(address, port)

    try:
        uids = wait_for(listening, timeout=LISTEN_SECONDS, what=_("the web port {port}").format(port=port))
    except TimedOut as error:
        error.remedy = _("Its log: .ailab/tasks/{task}/log").format(task="proxy")
        raise
    strangers = sorted(uids - {os.geteuid()})
    if strangers:
        raise Conflict(
            _("Port {port} is held by {who}, not by this lab: a login link would hand that account your login.").format(
                port=port, who=_account(strangers[0])
            ),
            remedy=_("Stop that program, or set another [access] port in {file}; then: ailab up").format(file=file),
        )


def listening_uids(address: str, port: int) -> set[int]:
    """The accounts whose listeners take connections to `address`: those at the address itself, else at all addresses,
    as the system chooses. Empty where nobody listens."""
    wanted = ip_address(address)
    places: list[IPv4Address | IPv6Address] = [wanted]
    if wanted.version == 4:
        places += [ip_address(f"::ffff:{wanted}"), ip_address("0.0.0.0")]  # noqa: S104  looked at, not listened on
    found = list(_listeners(port))
    for place in (*places, ip_address("::")):
        uids = {uid for at, uid in found if at == place}
        if uids:
            return uids
    return set()


def _listening_uid(port: int) -> int | None:
    """The account of a listener whose process we may not look into."""
    return next((uid for _address, uid in _listeners(port)), None)


def _listeners(port: int) -> Iterator[tuple[IPv4Address | IPv6Address, int]]:
    """Address and account of each listener on `port` (proc(5): /proc/net/tcp, columns 1, 3 and 7; an address is written
    as 32-bit words in the machine's byte order)."""
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines:
            fields = line.split()
            address, _colon, number = fields[1].rpartition(":")
            if fields[3] == _LISTEN and int(number, 16) == port:
                words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
                yield ip_address(struct.pack(f"={len(words)}I", *words)), int(fields[7])
