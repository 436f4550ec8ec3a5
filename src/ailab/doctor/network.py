"""The way to what is downloaded: proxies, names, the package index, the npm registry; and the clock, by their word."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # undocumented in typeshed

from ailab.doctor import web
from ailab.doctor.facts import Facts
from ailab.doctor.findings import Finding, Severity, error, fine, warning
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.waiting import begin, within

# A package that every stack asks for: an index that does not know it serves no lab.
PACKAGE = "ipykernel"
PROXY_PACKAGE = "configurable-http-proxy"
CONNECT_SECONDS = 2.0
NAME_SECONDS = 2.0
# Certificates and one-time links allow for minutes; a person notices less than that nowhere.
CLOCK_WRONG_SECONDS = 300
CLOCK_OFF_SECONDS = 60


def index_page(facts: Facts) -> str:
    return f"{facts.index.rstrip('/')}/{PACKAGE}/"


def registry_page(facts: Facts) -> str:
    return f"{facts.registry.rstrip('/')}/{PROXY_PACKAGE}"


def proxy_for(address: str, variables: Mapping[str, str]) -> str:
    """The proxy that tools use for `address`; empty for none. As curl and urllib read the variables: the small-lettered
    one wins, no_proxy takes hosts out, all_proxy is the last resort."""
    known = {name.lower(): value for name, value in sorted(variables.items()) if value}
    parts = _parts(address)
    if proxy_bypass_environment(parts.netloc.rpartition("@")[2], {"no": known.get("no_proxy", "")}):
        return ""
    return known.get(f"{parts.scheme}_proxy") or known.get("all_proxy", "")


def _parts(address: str) -> SplitResult:
    """`address` taken apart; empty parts for what is no address at all, which whoever asks it then says."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def proxies(facts: Facts) -> Iterator[Finding]:
    """Whether each proxy that would be asked accepts a connection."""
    for name in ("http_proxy", "https_proxy"):
        small, large = facts.network.get(name), facts.network.get(name.upper())
        if small and large and small != large:
            yield warning(
                _("{small} and {large} name different proxies: programs will differ.").format(
                    small=name, large=name.upper()
                ),
                f"{small}, {large}",
                _("Set both alike, or one alone."),
            )
    used = sorted({proxy_for(address, facts.network) for address in (facts.index, facts.registry)} - {""})
    for proxy in used:
        yield _proxy(proxy)
    if not used:
        yield fine(_("None for the addresses in use."))


def _proxy(address: str) -> Finding:
    correct = _("Correct [mirrors] proxy in lab.toml, or HTTPS_PROXY and HTTP_PROXY: http://HOST:PORT")
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme, 1080)
    except ValueError:
        host, port = None, 0
    if not host:
        return error(_("This is no address of a proxy: {address}").format(address=address), remedy=correct)
    try:
        within(NAME_SECONDS, lambda: socket.create_connection((host, port), CONNECT_SECONDS).close(), host)
    except (OSError, AilabError) as refused:
        return error(
            _("The proxy {address} does not accept connections.").format(address=address), str(refused), correct
        )
    return fine(_("{address} accepts connections.").format(address=address))


def names(facts: Facts) -> Iterator[Finding]:
    """Whether the hosts that we have to ask ourselves have addresses. Behind a proxy that is the proxy's host alone."""
    needed: dict[str, bool] = {}
    for address, need in ((facts.index, _needs_index(facts)), (facts.registry, facts.lacks_tools)):
        host = _parts(proxy_for(address, facts.network) or address).hostname
        if host and not _is_number(host):
            needed[host] = need or needed.get(host, False)
    looking = {host: begin(lambda host=host: _look_up(host)) for host in needed}  # type: ignore[misc]
    for host, ending in looking.items():
        addresses, refused = ending.result(NAME_SECONDS + 1)
        if addresses:
            yield fine(host, ", ".join(addresses[:2]))
        else:
            servers = [line.split()[1] for line in facts.read("etc/resolv.conf").splitlines()
                       if line.startswith("nameserver ")]  # fmt: skip
            asked = _("name servers in /etc/resolv.conf: {servers}").format(servers=", ".join(servers) or "-")
            yield _as_needed(
                needed[host],
                _("{host} has no address: the name cannot be resolved.").format(host=host),
                f"{refused}; {asked}",
                _("Check the network (getent hosts {host}). Behind a mirror set [mirrors] in lab.toml.").format(
                    host=host
                ),
            )
    if not needed:
        yield fine(_("No name has to be resolved."))


def _look_up(host: str) -> tuple[list[str], str]:
    """The addresses of `host`, or why there are none."""
    try:
        found = within(NAME_SECONDS, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM), host)
    except AilabError as late:
        return [], late.message
    except OSError as refused:
        return [], refused.strerror or str(refused)
    return sorted({str(one[4][0]) for one in found}), ""


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def package_index(facts: Facts) -> Iterator[Finding]:
    """Whether the index in use really answers as a package index does (PEP 503, PEP 691)."""
    if "://" not in facts.index or facts.index.startswith("file://"):
        yield _local_index(Path(facts.index.removeprefix("file://")), facts)
        return
    remedy = _("Set [mirrors] pypi in lab.toml to a simple index that answers; its address often ends in /simple.")
    context = web.context(facts.network.get("SSL_CERT_FILE"), facts.network.get("SSL_CERT_DIR"))
    yield _site(facts, index_page(facts), context, PACKAGE, remedy, needed=_needs_index(facts))


def npm_registry(facts: Facts) -> Iterator[Finding]:
    """Whether the registry in use really answers as npm's does."""
    remedy = _("Set [mirrors] npm in lab.toml to a registry that answers.")
    context = web.context(facts.network.get("npm_config_cafile"), None, more=facts.network.get("NODE_EXTRA_CA_CERTS"))
    yield _site(facts, registry_page(facts), context, PROXY_PACKAGE, remedy, needed=facts.lacks_tools)


def _needs_index(facts: Facts) -> bool:
    return facts.lacks_environment or facts.lacks_tools


def _local_index(folder: Path, facts: Facts) -> Finding:
    if folder.is_dir():
        return fine(str(folder))
    return _as_needed(
        _needs_index(facts), _("The package index {address} is not there.").format(address=folder), "",
        _("Correct [mirrors] pypi in lab.toml."),
    )  # fmt: skip


def _site(
    facts: Facts, page: str, context: Callable[[], web.Context], known: str, remedy: str, *, needed: bool
) -> Finding:
    try:
        answer = web.ask(page, proxy_for(page, facts.network), context())
    except web.NoAnswer as refused:
        return _as_needed(needed, refused.message, refused.detail, refused.remedy or remedy)
    if answer.status != 200 or known not in answer.start:
        said = f"HTTP {answer.status}, {answer.kind or '-'}: {' '.join(answer.start.split())[:80]}"
        message = _("{address} answers, but not with the package {package}.").format(address=page, package=known)
        return _as_needed(needed, message, said, _refused(answer.status) or remedy)
    return fine(page, f"HTTP 200, {answer.seconds:.1f} s")


def _refused(status: int) -> str:
    if status == 407:
        return _("The proxy asks for a login: [mirrors] proxy = http://NAME:PASSWORD@HOST:PORT in lab.toml.")
    if status in (401, 403):
        return _("It asks for a login: https://NAME:PASSWORD@HOST/... in [mirrors] of lab.toml.")
    return ""


def _as_needed(needed: bool, message: str, evidence: str, remedy: str) -> Finding:
    """An error while something has yet to be downloaded; what is installed works without a network."""
    return replace(warning(message, evidence, remedy), severity=Severity.error if needed else Severity.warning)


def clock(facts: Facts) -> Iterator[Finding]:
    """Compared with the index's own clock; where that does not answer, with the day on which ailab was installed."""
    set_it = _("Set the clock: timedatectl set-ntp true. In a container, set the host's.")
    here = f"{datetime.fromtimestamp(facts.now, UTC):%Y-%m-%d %H:%M:%S} UTC"
    there = _servers_clock(facts)
    if there is None:
        if facts.now < facts.installed - CLOCK_WRONG_SECONDS:
            yield error(_("The clock shows a time before ailab was installed."), here, set_it)
        else:
            yield fine(here, _("no server answered to compare it with"))
        return
    off = facts.now - there.timestamp()
    seen = _("here {here}, there {there} UTC").format(here=here, there=f"{there:%Y-%m-%d %H:%M:%S}")
    if abs(off) > CLOCK_WRONG_SECONDS:
        yield error(_("The clock is wrong by {seconds} s: certificates and logins will be refused.").format(
            seconds=round(off)), seen, set_it)  # fmt: skip
    elif abs(off) > CLOCK_OFF_SECONDS:
        yield warning(_("The clock is off by {seconds} s.").format(seconds=round(off)), seen, set_it)
    else:
        yield fine(here, seen)


def _servers_clock(facts: Facts) -> datetime | None:
    """The time that the index's server tells. Its certificate is not looked at: a wrong clock makes it look expired."""
    page = index_page(facts)
    try:
        answer = web.ask(page, proxy_for(page, facts.network), web.trusting_anyone())
        return parsedate_to_datetime(answer.date).astimezone(UTC) if answer.date else None
    except (web.NoAnswer, ValueError):
        return None
