"""uv, the resolver and installer: one wrapper, and its failures in our words."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ailab import command
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.paths import MachinePaths
from ailab.settings import MirrorsSection

INSTALL_SECONDS = 3600.0
_URL = re.compile(r"(?:https?|file)://[^\s`'\")]+")
# What passes to the tools that we call: how they reach the network, and nothing else of the caller's.
PASSED_ON = re.compile(r"(?i)(https?_proxy|all_proxy|no_proxy|ssl_cert_(file|dir)|curl_ca_bundle|requests_ca_bundle|"
                       r"node_extra_ca_certs|lang|lc_\w+|tz|tmpdir|uv_(default_)?index(_url)?)")  # fmt: skip


def network_environment(mirrors: MirrorsSection, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that carry `[mirrors]`, and the caller's own proxies and certificates, to any tool."""
    passed = {name: value for name, value in environ.items() if PASSED_ON.fullmatch(name)}
    if mirrors.ca_bundle:
        names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
        passed |= dict.fromkeys(names, mirrors.ca_bundle)
    if mirrors.proxy:
        passed |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), mirrors.proxy)
    return passed


@dataclass(frozen=True)
class Uv:
    """uv with a machine's cache and a lab's mirrors. Raises `AilabError` that names the address and the remedy."""

    machine: MachinePaths
    mirrors: MirrorsSection

    @property
    def program(self) -> str:
        named = os.environ.get("AILAB_UV")
        if named:
            return named
        from uv import find_uv_bin

        return find_uv_bin()

    def environment(self) -> dict[str, str]:
        variables = network_environment(self.mirrors, os.environ)
        variables |= {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.environ.get("HOME", "/"),
            "UV_CACHE_DIR": str(self.machine.cache / "uv"),
            "UV_PYTHON_INSTALL_DIR": str(self.machine.pythons),
            "UV_NO_CONFIG": "1",
            "UV_NO_PROGRESS": "1",
            "UV_LINK_MODE": "hardlink",
            "UV_PYTHON_DOWNLOADS": "manual",
        }
        if self.mirrors.pypi:
            variables["UV_DEFAULT_INDEX"] = self.mirrors.pypi
        if self.mirrors.python:
            variables["UV_PYTHON_INSTALL_MIRROR"] = self.mirrors.python
        return variables

    def run(self, *words: str | Path, cwd: Path | None = None, on_line: Callable[[str], None] | None = None) -> str:
        """Run uv; its standard output."""
        try:
            argv = [self.program, *words]
            return command.run(argv, timeout=INSTALL_SECONDS, env=self.environment(), cwd=cwd, on_line=on_line).stdout
        except command.CommandFailed as error:
            raise self.explain(error) from error

    def explain(self, error: command.CommandFailed) -> AilabError:
        """uv's failure as a cause and a remedy; its own words stay in the detail."""
        said = error.detail
        where = next(iter(_URL.findall(said)), self.mirrors.pypi or "PyPI").rstrip(".,;:`")
        lowered = said.lower()
        if "no space left" in lowered or "os error 28" in lowered:
            free = shutil.disk_usage(self.machine.home if self.machine.home.exists() else "/").free
            message = _("The disk is full: {free} MB are free in {folder}; an environment with TensorFlow takes 2000 MB.")
            remedy = _("Make room, or move AILAB_HOME to a larger disk, then: ailab up")
            return AilabError(message.format(free=free // 10**6, folder=self.machine.home), remedy=remedy, detail=said)
        if "certificate" in lowered or "unknownissuer" in lowered:
            remedy = _("Name your certificate authority: [mirrors] ca_bundle in lab.toml, or SSL_CERT_FILE.")
            return AilabError(_("{address} has a certificate that is not trusted.").format(address=where), remedy=remedy, detail=said)
        if "hash mismatch" in lowered:
            message = _("{address} serves a file that is not the one in the lock.").format(address=where)
            return AilabError(message, remedy=_("Do not use that mirror: [mirrors] pypi in lab.toml."), detail=said)
        if re.search(r"status code|http status|\b(401|403|404|5\d\d)\b.*(client|server) error|not found in the package reg", lowered):
            message = _("{address} does not serve what is asked for.").format(address=where)
            remedy = _("Check [mirrors] pypi in lab.toml: it is a simple index, its address often ends in /simple.")
            return AilabError(message, remedy=remedy, detail=said)
        if re.search(r"failed to fetch|error sending request|connect|dns|timed out|network", lowered):
            message = _("{address} cannot be reached.").format(address=where)
            remedy = _("Check the network; behind a mirror or proxy set [mirrors] pypi or proxy in lab.toml.")
            return AilabError(message, remedy=remedy, detail=said)
        if "no solution found" in lowered:
            remedy = _("Change [environment] packages in lab.toml so that they fit together.")
            return AilabError(_("The packages do not fit together."), remedy=remedy, detail=said)
        return error
