"""JupyterHub's settings, read by it at its start: unix sockets inside, our login, our spawner, our portal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ailab.access.authenticator import LabAuthenticator
from ailab.access.cookies import LOGIN_DAYS, OPTIONS
from ailab.access.services import PORTAL_PREFIX, socket_url
from ailab.access.spawner import LabSpawner
from ailab.i18n import translate, use_language
from ailab.paths import LabPaths

SERVICE = "ailab"
# What the hub's pages and JSON say to a browser, besides JupyterHub's own policy.
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cache-Control": "no-store"}


def settings(lab: LabPaths, environ: Any) -> dict[str, dict[str, Any]]:
    """Class -> trait -> value."""
    hub = socket_url(lab.hub_socket)
    service = {
        "name": SERVICE,
        "api_token": environ["AILAB_SERVICE_TOKEN"],
        "oauth_no_confirm": True,
        "oauth_client_allowed_scopes": ["access:services!service=ailab"],
        "oauth_redirect_uri": f"{PORTAL_PREFIX}oauth_callback",
    }
    scopes = ["admin:servers", "access:servers", "admin:users", "list:users", "read:users", "proxy", "read:hub"]
    return {
        "JupyterHub": {
            "bind_url": f"http://{environ['AILAB_WEB']}/",
            "hub_bind_url": hub,
            "hub_connect_url": hub,
            "db_url": f"sqlite:///{lab.hub_database}",
            "authenticator_class": LabAuthenticator,
            "spawner_class": LabSpawner,
            "cleanup_servers": False,
            "cleanup_proxy": False,
            "default_url": PORTAL_PREFIX,
            "services": [service],
            "load_roles": [
                {"name": SERVICE, "services": [SERVICE], "scopes": scopes},
                {"name": "user", "scopes": ["self", "access:services!service=ailab"]},
            ],
            "template_paths": [str(Path(__file__).with_name("templates"))],
            "template_vars": {"home": PORTAL_PREFIX, "_": words_of(environ["AILAB_LANGUAGE"])},
            "init_spawners_timeout": 0,
            "allow_named_servers": False,
            "concurrent_spawn_limit": 0,
            "cookie_max_age_days": LOGIN_DAYS,
            "tornado_settings": {"cookie_options": OPTIONS, "headers": HEADERS},
            "activity_resolution": 60,
            "last_activity_interval": 300,
        },
        "ConfigurableHTTPProxy": {
            "should_start": False,
            "api_url": socket_url(lab.run / "proxy-api.sock"),
            "auth_token": environ["CONFIGPROXY_AUTH_TOKEN"],
            "check_running_interval": 10,
        },
        "LabSpawner": {
            "lab_root": str(lab.root),
            "default_url": "/lab",
            "http_timeout": 60,
            "start_timeout": 120,
            # Those of JupyterHub's own role `server`; with the third a notebook asks the portal for jobs.
            "server_token_scopes": [
                "users:activity!user",
                "access:servers!server",
                "access:services!service=ailab",
            ],
        },
        "LabAuthenticator": {"daemon_socket": str(lab.daemon_socket), "allow_all": True, "auto_login": False},
    }


def words_of(language: str) -> Callable[[Any], Callable[[str], str]]:
    """The templates' `_`. JupyterHub calls a callable variable with the user, and shows what that returns."""
    return lambda _user: lambda sentence: translate(sentence, language)


def apply(config: Any) -> None:
    use_language(os.environ["AILAB_LANGUAGE"])
    for name, traits in settings(LabPaths(Path(os.environ["AILAB_LAB"])), os.environ).items():
        config[name].update(traits)


if "get_config" in globals():
    apply(globals()["get_config"]())
