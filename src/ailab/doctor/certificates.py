"""The certificate authorities that our tools are told to trust: files that can be read, and are not out of date."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ailab.doctor.facts import Facts
from ailab.doctor.findings import Finding, error, fine, warning
from ailab.i18n import _

_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")


def bundles(facts: Facts) -> Iterator[Finding]:
    named: dict[str, list[str]] = {}
    for variable in _FILES:
        if facts.network.get(variable):
            named.setdefault(facts.network[variable], []).append(variable)
    for file, variables in named.items():
        who = "[mirrors] ca_bundle" if file == facts.settings.mirrors.ca_bundle else ", ".join(variables)
        yield _bundle(Path(file), who, facts.now)
    folder = facts.network.get("SSL_CERT_DIR", "")
    for part in filter(None, folder.split(":")):
        if not Path(part).is_dir():
            yield error(
                _("The folder of certificates that SSL_CERT_DIR names is not there."), part, "unset SSL_CERT_DIR"
            )
    if not named:
        yield fine(_("None named: the public authorities that come with our tools are trusted."))


def _bundle(file: Path, who: str, now: float) -> Finding:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    correct = _("Correct {who}: a PEM file with the authority's certificate that this account can read.").format(
        who=who
    )
    try:
        context.load_verify_locations(cafile=str(file))
    except ssl.SSLError as refused:
        reason = refused.reason or str(refused)
        return error(_("{file} holds no certificate.").format(file=file), reason.replace("_", " ").lower(), correct)
    except OSError as refused:
        return error(_("{file} cannot be read.").format(file=file), refused.strerror or "", correct)
    old = [one for one in context.get_ca_certs() if ssl.cert_time_to_seconds(str(one["notAfter"])) < now]
    count = context.cert_store_stats()["x509"]
    seen = _("{count} certificates in {file}").format(count=count, file=file)
    if old and len(old) == count:
        return error(_("Every certificate in {file} has expired.").format(file=file), _names(old), correct)
    if old and who == "[mirrors] ca_bundle":
        return warning(_("Some certificates in {file} have expired.").format(file=file), _names(old), correct)
    return fine(seen, who)


def _names(certificates: list[Any]) -> str:
    """The subjects' common names with the day of their end, three at most."""
    shown = []
    for one in certificates[:3]:
        parts = dict(pair for group in one["subject"] for pair in group)
        shown.append(f"{parts.get('commonName', '?')} ({one['notAfter']})")
    return ", ".join(shown)
