"""The Debian packages of a system, as dpkg lists them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ailab.i18n import _

STATUS = "var/lib/dpkg/status"


def packages_of(status: str) -> dict[str, str]:
    """The installed packages in the text of dpkg's list, name -> version."""
    found = {}
    for entry in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Status): (.+)$", entry, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            found[fields["Package"]] = fields["Version"]
    return found


def missing(names: Iterable[str], status: str) -> tuple[str, ...]:
    """Those of `names` that are not installed. None where there is no such list: that is no Debian."""
    known = packages_of(status)
    return tuple(sorted(set(names) - known.keys())) if known else ()


def missing_told(names: Sequence[str]) -> tuple[str, str]:
    """That these, which lab.toml names, are not on this machine; and the command that installs them."""
    return (
        _("Debian packages that lab.toml names are not on this machine: {names}.").format(names=", ".join(names)),
        _("Install them: sudo apt-get install {names}").format(names=" ".join(names)),
    )
