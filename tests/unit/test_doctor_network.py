"""The doctor's checks of the network, against servers on loopback that fail in every way."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest
from loopback import private_authority, serving
from patients import a_lab, facts_of, severities

from ailab.doctor import certificates, network
from ailab.doctor.facts import Facts
from ailab.doctor.findings import Finding, Severity

OK, WARNING, ERROR = Severity.ok, Severity.warning, Severity.error
DEAD = "http://127.0.0.1:9/simple"
INDEX = "<a href='ipykernel-6.whl'>ipykernel</a>"


def index(tmp_path: Path, address: str, **changes: object) -> Finding:
    (found,) = network.package_index(facts_of(tmp_path, index=address, **changes))
    return found


def test_an_index_that_answers(tmp_path: Path) -> None:
    with serving(INDEX) as address:
        assert index(tmp_path, f"{address}/simple").severity == OK
    assert index(tmp_path, f"file://{tmp_path}").severity == OK
    assert index(tmp_path, "/nonexistent/simple").severity == ERROR


def test_a_dead_mirror_is_an_error_only_while_it_is_needed(tmp_path: Path) -> None:
    found = index(tmp_path, DEAD)
    assert found.severity == ERROR and DEAD in found.message
    assert "refused" in found.evidence and "[mirrors] pypi" in found.remedy
    assert index(tmp_path, DEAD, lacks_environment=False, lacks_tools=False).severity == WARNING
    (npm,) = network.npm_registry(facts_of(tmp_path, registry="http://127.0.0.1:9"))
    assert npm.severity == ERROR and "[mirrors] npm" in npm.remedy


@pytest.mark.parametrize(
    ("status", "body", "remedy"),
    [
        (404, "", "ends in /simple"),
        (403, "", "login"),
        (503, "", "/simple"),
        (200, "<h1>Welcome, guest</h1>", "/simple"),
    ],
)
def test_an_answer_that_is_no_index(tmp_path: Path, status: int, body: str, remedy: str) -> None:
    with serving(body, status=status) as address:
        found = index(tmp_path, address)
    assert found.severity == ERROR and str(status) in found.evidence and remedy in found.remedy


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/simple"


def test_a_server_that_says_nothing_costs_seconds_not_minutes(tmp_path: Path, silent: str) -> None:
    started = time.monotonic()
    found = index(tmp_path, silent)
    assert found.severity == ERROR and "no answer within" in found.evidence
    assert time.monotonic() - started < 4


def test_an_address_that_is_none(tmp_path: Path) -> None:
    for address in ("htp://x/simple", "http:", "http://[::bad/simple", "https://exa mple/"):
        found = index(tmp_path, address)
        assert found.severity == ERROR and address.rstrip("/") in found.message and "[mirrors] pypi" in found.remedy
        facts = facts_of(tmp_path, index=address, registry=address)
        assert severities(network.clock(facts)) == [OK] and OK in severities(network.proxies(facts))
        list(network.names(facts))


def test_a_certificate_that_nobody_trusts_and_the_bundle_that_mends_it(tmp_path: Path) -> None:
    server, authority = private_authority(tmp_path)
    with serving(INDEX, certificate=server) as address:
        refused = index(tmp_path, f"{address}/simple")
        assert refused.severity == ERROR and "not trusted" in refused.message
        assert "self" in refused.evidence and "ca_bundle" in refused.remedy
        trusting = {"SSL_CERT_FILE": str(authority), "NODE_EXTRA_CA_CERTS": str(authority)}
        assert index(tmp_path, f"{address}/simple", network=trusting).severity == OK


def test_the_bundle_of_lab_toml_is_the_one_used(tmp_path: Path) -> None:
    server, authority = private_authority(tmp_path)
    with serving(INDEX, certificate=server) as address:
        lab = a_lab(tmp_path / "lab", f'[mirrors]\npypi = "{address}/simple"\nca_bundle = "../{authority.name}"\n')
        (found,) = network.package_index(facts_of(tmp_path / "home", lab))
    assert found.severity == OK


def test_bundles_that_will_not_do(tmp_path: Path) -> None:
    garbage, missing = tmp_path / "garbage.pem", tmp_path / "missing.pem"
    garbage.write_text("not a certificate")
    _server, expired = private_authority(tmp_path, days=-1)
    for file, said in ((garbage, "no certificate"), (missing, "cannot be read"), (expired, "expired")):
        found = list(certificates.bundles(facts_of(tmp_path, network={"SSL_CERT_FILE": str(file)})))
        assert severities(found) == [ERROR] and said in found[0].message and "SSL_CERT_FILE" in found[0].remedy
    folder = list(certificates.bundles(facts_of(tmp_path, network={"SSL_CERT_DIR": str(missing)})))
    assert ERROR in severities(folder)
    assert severities(certificates.bundles(facts_of(tmp_path))) == [OK]


def test_a_bad_bundle_does_not_take_the_index_check_with_it(tmp_path: Path) -> None:
    found = index(tmp_path, "https://127.0.0.1:9/simple", network={"SSL_CERT_FILE": str(tmp_path / "none")})
    assert found.severity == ERROR and "cannot be read" in found.message


def test_names_that_nobody_knows(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, index="https://mirror.invalid/simple", registry="http://127.0.0.1:4873")
    found = list(network.names(facts))
    assert severities(found) == [ERROR] and "mirror.invalid" in found[0].message and "resolv.conf" in found[0].evidence
    behind = facts_of(
        tmp_path, index=facts.index, registry=facts.registry, network={"https_proxy": "http://127.0.0.1:3128"}
    )
    assert severities(network.names(behind)) == [OK], "the proxy resolves it"


@pytest.mark.parametrize(
    ("address", "variables", "proxy"),
    [
        ("https://pypi.org/simple", {"HTTPS_PROXY": "http://a:1"}, "http://a:1"),
        ("https://pypi.org/simple", {"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:1"}, "http://b:1"),
        ("http://pypi.org/simple", {"HTTPS_PROXY": "http://a:1"}, ""),
        ("http://pypi.org/simple", {"ALL_PROXY": "http://a:1"}, "http://a:1"),
        ("https://x.corp/simple", {"HTTPS_PROXY": "http://a:1", "NO_PROXY": ".corp"}, ""),
        ("https://x.corp/simple", {"HTTPS_PROXY": "http://a:1", "no_proxy": "*"}, ""),
        ("https://x.corp/simple", {}, ""),
    ],
)
def test_which_proxy(address: str, variables: dict[str, str], proxy: str) -> None:
    assert network.proxy_for(address, variables) == proxy


def proxied(tmp_path: Path, **variables: str) -> Facts:
    return facts_of(tmp_path, index="http://pypi.invalid/simple", registry="http://npm.invalid", network=variables)


def test_proxies(tmp_path: Path) -> None:
    assert severities(network.proxies(proxied(tmp_path))) == [OK]
    dead = list(network.proxies(proxied(tmp_path, http_proxy="http://127.0.0.1:9")))
    assert severities(dead) == [ERROR] and "refused" in dead[0].evidence and "[mirrors] proxy" in dead[0].remedy
    assert severities(network.proxies(proxied(tmp_path, http_proxy="http://"))) == [ERROR]
    assert severities(network.proxies(proxied(tmp_path, http_proxy="http://127.0.0.1:port"))) == [ERROR]
    with serving(INDEX) as address:
        facts = proxied(tmp_path, http_proxy=address, HTTP_PROXY="http://127.0.0.1:9")
        assert severities(network.proxies(facts)) == [WARNING, OK], "the two differ"
        (found,) = network.package_index(facts)
        assert found.severity == OK, "it went through the proxy: no such host exists"


def test_a_proxy_that_asks_for_a_login(tmp_path: Path) -> None:
    with serving(status=407) as address:
        (found,) = network.package_index(proxied(tmp_path, http_proxy=address))
    assert found.severity == ERROR and "NAME:PASSWORD" in found.remedy


@pytest.mark.parametrize(("off", "severity"), [(0, OK), (120, WARNING), (-120, WARNING), (3600, ERROR), (-3600, ERROR)])
def test_a_clock_that_the_servers_contradicts(tmp_path: Path, off: int, severity: Severity) -> None:
    now = time.time()
    with serving(date=format_datetime(datetime.fromtimestamp(now, UTC), usegmt=True)) as address:
        found = list(network.clock(facts_of(tmp_path, index=address, now=now + off)))
    assert severities(found) == [severity]
    if off:
        told = re.search(r"-?\d+", found[0].message)
        assert told and abs(int(told[0]) - off) <= 2 and "set-ntp" in found[0].remedy


def test_a_clock_with_nobody_to_ask(tmp_path: Path) -> None:
    assert severities(network.clock(facts_of(tmp_path, index=DEAD))) == [OK]
    assert severities(network.clock(facts_of(tmp_path, index=DEAD, now=0.0))) == [ERROR]
