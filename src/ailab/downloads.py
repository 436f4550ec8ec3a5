"""What every tool that downloads is told: `[mirrors]` of lab.toml, else what the caller's own shell says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from ailab.settings import MirrorsSection

# Of each key in [mirrors], the variables that carry it: to uv, to pip, to npm and Node, to curl and Python's requests.
_TOLD = {
    "pypi": ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"),
    "python": ("UV_PYTHON_INSTALL_MIRROR",),
    "npm": ("npm_config_registry",),
    "ca_bundle": (
        "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "npm_config_cafile",
    ),
    "proxy": ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"),
}  # fmt: skip
# Where a key is empty, the caller's variables that stand for it with every tool; the first that is set.
_CALLERS = {
    "pypi": _TOLD["pypi"],
    "python": _TOLD["python"],
    "npm": _TOLD["npm"],
    "ca_bundle": ("SSL_CERT_FILE",),
    "proxy": (),
}
_PASSED_ON = re.compile(
    r"(?i)(https?|all|no)_proxy|ssl_cert_dir|requests_ca_bundle|curl_ca_bundle|node_extra_ca_certs|npm_config_cafile"
)
_LOOPBACK = "localhost,127.0.0.1,::1"


def variables(mirrors: MirrorsSection, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of the way to what is downloaded, the same for ailab's own tools and for a person's in
    the lab. What lab.toml names stands before the caller's `environ`, of which nothing else is passed on."""
    told = {name: value for name, value in environ.items() if _PASSED_ON.fullmatch(name) and value}
    for key, names in _TOLD.items():
        chosen = getattr(mirrors, key)
        callers = next((environ[name] for name in _CALLERS[key] if environ.get(name)), "")
        if chosen:
            told |= dict.fromkeys(names, chosen)
        elif callers:
            told |= {name: environ.get(name) or callers for name in names}
    if mirrors.pypi.startswith("http://"):
        # uv takes it as it is named; pip passes over an address without encryption unless it is told twice.
        told["PIP_TRUSTED_HOST"] = urlsplit(mirrors.pypi).netloc.rpartition("@")[2]
    if mirrors.proxy:
        # Not what listens on this machine: a notebook's own servers, a mirror beside the lab.
        told |= {name: told.get(name) or _LOOPBACK for name in ("NO_PROXY", "no_proxy")}
    return told


def reads(name: str) -> bool:
    """Whether `variables` reads the caller's variable of that name."""
    return any(name in names for names in _TOLD.values()) or _PASSED_ON.fullmatch(name) is not None


def index(mirrors: MirrorsSection, environ: Mapping[str, str]) -> str:
    """The package index in use; empty for PyPI."""
    return variables(mirrors, environ).get("UV_DEFAULT_INDEX", "")
