"""One request to a server that may not be there: what it answered, or why it did not, within seconds."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from ailab.errors import AilabError
from ailab.i18n import _
from ailab.waiting import TimedOut, within

CONNECT_SECONDS = 2.0
ASK_SECONDS = 2.0
_START_BYTES = 65536
Context = ssl.SSLContext


class NoAnswer(AilabError):
    """The server did not answer, or with a certificate that is not trusted."""

    kind = "no-answer"


@dataclass(frozen=True)
class Answer:
    """`start` is the first 64 KiB of the body as text, `kind` its content type, `date` the server's clock as sent."""

    status: int
    kind: str
    date: str
    start: str
    seconds: float


def context(file: str | None, folder: str | None, more: str | None = None) -> Callable[[], Context]:
    """Whom to trust, as uv and Node do: `file` and `folder` instead of the public authorities that they come with
    (Mozilla's, which httpx has too), `more` beside those. Made when it is called; raises `NoAnswer` for a bad file."""

    def make() -> Context:
        import httpx

        try:
            named = file or folder
            made = (
                ssl.create_default_context(cafile=file, capath=folder)
                if named
                else httpx.create_ssl_context(trust_env=False)
            )
            if more:
                made.load_verify_locations(cafile=more)
        except OSError as refused:  # ssl.SSLError is one
            raise NoAnswer(
                _("The certificates to trust cannot be read."), detail=f"{more or file or folder}: {refused}"
            ) from refused
        return made

    return make


def trusting_anyone() -> Context:
    """For what needs no trust: nothing secret is sent, nothing but a time is read."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def ask(address: str, proxy: str, trust: Context) -> Answer:
    """GET `address`, through `proxy` if it is not empty. Raises `NoAnswer` with the cause as its detail."""
    import httpx

    try:
        return within(ASK_SECONDS, lambda: _get(address, proxy, trust), address)
    except TimedOut:
        why = _("no answer within {seconds:g} s").format(seconds=ASK_SECONDS)
    except httpx.TimeoutException:
        why = _("no answer within {seconds:g} s").format(seconds=CONNECT_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError) as refused:
        why = str(refused) or type(refused).__name__
        if "CERTIFICATE_VERIFY_FAILED" in why:
            raise NoAnswer(
                _("The certificate of {address} is not trusted.").format(address=address),
                remedy=_("Name your authority's PEM file: [mirrors] ca_bundle in lab.toml, or SSL_CERT_FILE."),
                detail=why.partition("verify failed: ")[2] or why,
            ) from refused
    raise NoAnswer(_("{address} does not answer.").format(address=address), detail=why)


def _get(address: str, proxy: str, trust: Context) -> Answer:
    import httpx

    started = time.monotonic()
    client = httpx.Client(
        verify=trust, proxy=proxy or None, trust_env=False, timeout=CONNECT_SECONDS, follow_redirects=True
    )
    with client, client.stream("GET", address) as response:
        start = b""
        for piece in response.iter_bytes():
            start += piece
            if len(start) >= _START_BYTES:
                break
        headers = response.headers
        text = start.decode("utf-8", errors="replace")
        seconds = time.monotonic() - started
        return Answer(response.status_code, headers.get("content-type", ""), headers.get("date", ""), text, seconds)
