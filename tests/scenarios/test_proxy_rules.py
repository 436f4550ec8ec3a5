"""The proxy: bodies that nobody reads, addresses that do not decode, and what it says of where a request came from."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from browsing import PORTAL, browser, log_in, with_own_password
from conftest import CommandLine

import ailab.access
from ailab.access import tools
from ailab.paths import MachinePaths

pytestmark = pytest.mark.lab
RULES = Path(ailab.access.__file__).with_name("proxy_rules.cjs")
ECHO = """
const server = require("node:http").createServer((request, answer) => answer.end(JSON.stringify(request.headers)));
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"""
BODY = b"x" * 100_000


@pytest.mark.parametrize("who", ["stranger", "person"])
def test_a_post_that_is_refused_is_answered_by_who_refuses_it(science: CommandLine, who: str) -> None:
    refused = [f"{PORTAL}api/status", f"{PORTAL}nowhere", f"{PORTAL}jobs/1/stop", f"{PORTAL}tensorboard/data/runs",
               f"{PORTAL}tensorboard/nowhere", f"{PORTAL}static/live.js", "/hub/api/users", "/hub/nowhere",
               "/user/nobody/api/contents"]  # fmt: skip
    seen: Counter[int] = Counter()
    with browser(science, Origin="http://evil.example") as page:
        if who == "person":
            person = with_own_password(science)
            log_in(page, person.name, person.password)
            page.headers["Origin"] = str(page.base_url).rstrip("/")
        for path in refused * 30:
            seen[page.post(path, content=BODY, follow_redirects=False).status_code] += 1
    assert all(status < 500 for status in seen), seen


ADDRESSES = ["/%", "/%ff", "/hub/%c3%28", f"{PORTAL}%ff", f"{PORTAL}api/%zz", "/user/%f0%28/lab", "//", "/\\"]


@pytest.mark.parametrize("path", ADDRESSES)
def test_an_address_that_does_not_decode_is_a_page_that_there_is_not(science: CommandLine, path: str) -> None:
    for method in ("GET", "POST"):
        connection = http.client.HTTPConnection(*science.web, timeout=30)
        connection.putrequest(method, path, skip_host=path == "/%")
        connection.putheader("Content-Length", "0")
        connection.endheaders()
        assert 300 <= connection.getresponse().status < 500
        connection.close()


@contextmanager
def echo(science: CommandLine, trusted: str) -> Iterator[str]:
    """A server with the proxy's rules, which answers with the headers that it was sent."""
    node = tools.find(MachinePaths(Path(science.environment["AILAB_HOME"]))).node
    words = [node, f"--require={RULES}", "-e", ECHO]
    with subprocess.Popen(words, env={"AILAB_TRUSTED_PROXIES": trusted}, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}/"
        finally:
            server.kill()


@pytest.mark.parametrize(
    ("trusted", "told", "client", "scheme"),
    [
        ("", {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}, "127.0.0.1", "http"),
        ("127.0.0.1/32", {"X-Forwarded-For": "203.0.113.6, 203.0.113.7"}, "203.0.113.7", "http"),
        ("127.0.0.0/8", {"X-Forwarded-For": "203.0.113.7, 127.0.0.9"}, "203.0.113.7", "http"),
        ("127.0.0.0/8", {"X-Forwarded-Proto": "http, https"}, "127.0.0.1", "https"),
        ("127.0.0.0/8,::1/128", {"X-Forwarded-For": "no address"}, "127.0.0.1", "http"),
        ("127.0.0.0/8", {"X-Forwarded-Proto": "gopher", "X-Real-Ip": "203.0.113.7"}, "127.0.0.1", "http"),
        ("10.0.0.0/8", {"Forwarded": "for=203.0.113.7;proto=https", "X-Scheme": "https"}, "127.0.0.1", "http"),
    ],
)  # fmt: skip
def test_only_a_trusted_front_proxy_says_where_a_request_came_from(
    science: CommandLine, trusted: str, told: dict[str, str], client: str, scheme: str
) -> None:
    with echo(science, trusted) as address, urlopen(Request(address, headers=told)) as answer:
        headers = json.load(answer)
    assert headers["x-forwarded-for"] == client and headers["x-forwarded-proto"] == scheme
    assert headers["x-forwarded-host"] == headers["host"]
    assert not {"x-real-ip", "x-scheme", "forwarded"} & set(headers)
