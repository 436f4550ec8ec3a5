"""Where a request comes from, by the word of the lab's own proxy."""

from __future__ import annotations

import ipaddress

from fastapi import Request


def client_address(request: Request) -> str:
    """The browser's address; empty where the proxy has not said it.

    The proxy sets the header to this one address (`access/proxy_rules.cjs`). Of several elements the last is the one
    that the nearest proxy has added; those before it are the client's word.
    """
    address = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return ""


def is_https(request: Request) -> bool:
    """Whether the browser came by HTTPS."""
    return request.headers.get("x-forwarded-proto", "").rpartition(",")[2].strip() == "https"
