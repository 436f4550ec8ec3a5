"""Taking secrets out of what leaves the machine: those that the lab knows, and whatever looks like one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ailab import command
from ailab.doctor.facts import matching
from ailab.paths import LabPaths

_MASK = "***"
_SECRET_NAME = re.compile(r"(?i)(token|secret|passw(or)?d|passphrase|api_?key|access_?key|credential|_auth$)")
_VALUE = r"[^\s\"'&,;)\]}]+"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), _MASK),
    # A login in an address: https://user:password@host, https://token@host.
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@\"']+@"), rf"\1{_MASK}@"),
    (re.compile(r"(?im)\b((?:proxy-)?authorization|(?:set-)?cookie|x-api-key)(['\"]?\s*[:=]\s*).*$"), rf"\1\2{_MASK}"),
    (
        re.compile(
            rf"(?i)([\w-]*(?:token|secret|passw(?:or)?d|passphrase|api[_-]?key|access[_-]?key|_xsrf)[\w-]*)"
            rf"(['\"]?\s*[:=]\s*)(?:\"[^\"\n]*\"|'[^'\n]*'|{_VALUE})"
        ),
        rf"\1\2{_MASK}",
    ),
    (re.compile(rf"(?i)([?&](?:code|key|sig|signature|state)=){_VALUE}"), rf"\1{_MASK}"),
    (re.compile(r"(?i)\b(bearer|token|basic)(\s+)(?=\S*\d)[A-Za-z0-9._~+/=-]{8,}"), rf"\1\2{_MASK}"),
    # Tokens that say what they are: GitHub, GitLab, Hugging Face, AWS, PyPI, Slack, OpenAI, JSON Web Tokens; hashes.
    (re.compile(r"\b(gh[pousr]_|github_pat_|glpat-|hf_|AKIA|ASIA|pypi-|xox[abprs]-|sk-)[A-Za-z0-9_-]{16,}"), _MASK),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(\.[A-Za-z0-9_-]*)?"), _MASK),
    (re.compile(r"\$(argon2\w*|2[aby]|5|6|y)\$\S+"), _MASK),
    (re.compile(r"\b[0-9a-fA-F]{32,}\b"), _MASK),
)


def redact(text: str) -> str:
    """`text` without the secrets that this process knows, and without what looks like one. Rather too much than too
    little: a digest of 32 or more hexadecimal digits goes as well."""
    text = command.redact(text)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def learn_secrets(lab: LabPaths | None, environ: Mapping[str, str]) -> None:
    """Make every secret of the lab known to `redact`: its files, and what tasks and this process carry in variables."""
    for value in (*_from_variables(environ), *(_from_lab(lab) if lab else ())):
        command.keep_secret(value)


def _from_variables(environ: Mapping[str, str]) -> Iterator[str]:
    yield from (value for name, value in environ.items() if _SECRET_NAME.search(name))


def _from_lab(lab: LabPaths) -> Iterator[str]:
    for file in matching(lab.secrets, "*"):
        yield from (line.strip() for line in _text(file).splitlines())
    for file in matching(lab.tasks, "*/spec.json"):
        yield from _from_variables(_environment(_text(file)))


def _environment(text: str) -> dict[str, str]:
    """The variables in a task's spec.json; none where it cannot be read."""
    try:
        environment = json.loads(text)["spec"]["environment"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {str(name): str(value) for name, value in environment.items()} if isinstance(environment, dict) else {}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
