"""Cookies of the hub and of Jupyter servers: no other site's form sends them, no plain connection after HTTPS."""

from __future__ import annotations

from typing import Any

# How long a login lasts. A page that is left open over a weekend still saves on Monday.
LOGIN_DAYS = 7
OPTIONS = {"samesite": "Lax", "expires_days": LOGIN_DAYS}


def keep_cookies_here(handler: Any) -> None:
    """Have a Tornado handler class, and those made of it, set SameSite, and Secure where the browser came by HTTPS."""
    plain_set_cookie = handler.set_cookie

    def set_cookie(self: Any, name: str, value: Any, *words: Any, **options: Any) -> None:
        options.setdefault("samesite", "Lax")
        if self.request.protocol == "https":
            options["secure"] = True
        plain_set_cookie(self, name, value, *words, **options)

    handler.set_cookie = set_cookie
