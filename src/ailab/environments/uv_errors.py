"""What uv's failures mean: the cause, the address that failed, and the key in lab.toml that mends it."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ailab.disk import disk_full
from ailab.environments.build_needs import apt_packages
from ailab.errors import AilabError
from ailab.i18n import _

_URL = re.compile(r"(?:https?|file)://[^\s`'\")]+")
_UNKNOWN_PACKAGE = re.compile(r"\b([A-Za-z0-9][A-Za-z0-9._-]*) was not found in the (?:package registry|cache)")
_NO_VERSION = re.compile(r"there (?:is no version of|are no versions of) ([A-Za-z0-9][^\s,]*)")
_NOT_BUILT = re.compile(r"Failed to (?:build|download and build|prepare distributions for) `([^`]+)`")
_MISMATCH = re.compile(r"Hash mismatch for `([^`]+)`")
_REFUSED = re.compile(r"\b[45]\d\d(?: [A-Z][a-z]+)+")
_UNREACHABLE = re.compile(r"(?i)failed to fetch|error sending request|dns error|tcp connect|timed out|connection reset")


class DoNotFit(AilabError):
    """No set of versions satisfies all that is asked for. `detail` has the resolver's whole derivation."""

    kind = "does-not-fit"


class WrongHash(AilabError):
    """A package is not the one that the lock names."""


@contextmanager
def room(folder: Path, needed_mb: int) -> Iterator[None]:
    """A full disk is told of as such: what is written goes to `folder`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(folder, needed_mb=needed_mb) from error
        raise


def explain(said: str, *, index: str, cache: Path, needed_mb: int) -> AilabError | None:
    """uv's failure in our words, from all that it printed; None when it is none of the known ones.

    `index` is the package index that it was told to use; `needed_mb` is what a full disk would have had to hold.
    """
    where = next(iter(_URL.findall(said)), index).rstrip(".,;:`/")
    if "No space left" in said or "os error 28" in said:
        named = re.search(r"(?:file|to) `?(/[^`\s:]+)", said)
        return disk_full(Path(named[1]).parent if named else cache, needed_mb=needed_mb, detail=said)
    wrong = _MISMATCH.search(said)
    if wrong is not None:
        return WrongHash(
            _("{address} serves a {package} that is not the one in the lock.").format(address=where, package=wrong[1]),
            remedy=_("Do not use that mirror ([mirrors] pypi in lab.toml), or look who changed lab.lock."),
            detail=said,
        )
    for looks in (_untrusted, _not_built, _wrong_index, _unreachable):
        told = looks(said, where)
        if told is not None:
            return AilabError(told[0], remedy=told[1], detail=said)
    if "No solution found" in said or "unsatisfiable" in said:
        remedy = _("Change [environment] packages in lab.toml so that they fit together and with the stack.")
        message = _("The packages do not fit together: {why}").format(why=_because(said))
        return DoNotFit(message, remedy=remedy, detail=said)
    return None


def _untrusted(said: str, where: str) -> tuple[str, str] | None:
    if "certificate" not in said.lower():
        return None
    return (
        _("The certificate of {address} is not trusted.").format(address=where),
        _("Name your certificate authority's PEM file: [mirrors] ca_bundle in lab.toml, or SSL_CERT_FILE."),
    )


def _not_built(said: str, where: str) -> tuple[str, str] | None:
    found = _NOT_BUILT.search(said)
    if found is None:
        return None
    needs = " ".join(apt_packages(said))
    return (
        _("{package} has no wheel that fits, and could not be built from its source.").format(package=found[1]),
        _("Give it what it builds with: apt-get install {needs}; or choose a version that has a wheel.").format(
            needs=needs
        ),
    )


def _wrong_index(said: str, where: str) -> tuple[str, str] | None:
    mirror = _("Check [mirrors] pypi in lab.toml: it is a simple index, its address often ends in /simple.")
    refused = _REFUSED.search(said)
    if refused is not None:
        return _("{address} answers: {answer}.").format(address=where, answer=refused[0]), mirror
    lacking = _UNKNOWN_PACKAGE.search(said) or _NO_VERSION.search(said)
    if lacking is None:
        return None
    name = lacking[1].rstrip(".")
    return (
        _("{address} does not have {package}.").format(address=where, package=name),
        _("Is the name right in [environment] packages? If so: {mirror}").format(mirror=mirror),
    )


def _unreachable(said: str, where: str) -> tuple[str, str] | None:
    if not _UNREACHABLE.search(said):
        return None
    why = said.strip().splitlines()[-1].removeprefix("  cause: ").strip()
    return (
        _("{address} cannot be reached: {reason}.").format(address=where, reason=why.rstrip(".")),
        _("Check the network. Behind a mirror or a proxy, set [mirrors] pypi or [mirrors] proxy in lab.toml."),
    )


def _because(said: str) -> str:
    """The resolver's own sentence, in one line."""
    at = said.find("Because ")
    sentence = said[at:] if at >= 0 else said
    return " ".join(re.split(r"\n\s*\n|\nhint:", sentence)[0].split())
