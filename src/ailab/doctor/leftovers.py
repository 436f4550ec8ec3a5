"""What crashes and kills left in files: half-built environments, sockets nobody listens on, half-made switches."""

from __future__ import annotations

import errno
import shlex
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from ailab.doctor.facts import Facts
from ailab.doctor.findings import Finding, Fix, fine, warning
from ailab.i18n import _
from ailab.paths import LabPaths

_SOCKET_SECONDS = 0.5


def builds(facts: Facts) -> Iterator[Finding]:
    """Environments that a killed build left half-done; the next build would remove them too."""
    halves = facts.probes.halves()
    if not halves:
        yield fine(_("None."))
        return
    how = shlex.join(["rm", "-r", *map(str, halves)])
    yield warning(
        _("A killed build left {count} half-built environments behind: they only take room.").format(count=len(halves)),
        _listed(list(halves)),
        how,
        Fix(how, facts.probes.remove_halves),
    )


def files(facts: Facts) -> Iterator[Finding]:
    """Sockets are worth no warning, for a lab that was stopped leaves them and its next start replaces them; `--fix`
    sweeps them up all the same."""
    assert facts.lab is not None, "a check of labs"
    switches = _switches(facts)
    sockets = [] if facts.probes.daemon().pid or facts.probes.running() else stale_sockets(facts.lab.run)
    if switches:
        yield warning(_("Half-made switches of the environment."), _listed(switches), *_removal(facts.lab, switches))
    if sockets:
        how, fix = _removal(facts.lab, sockets)
        seen = fine(_("Sockets of the stopped lab; its next start replaces them."), _listed(sockets))
        yield replace(seen, remedy=how, fix=fix)
    if not switches and not sockets:
        yield fine(_("Nothing."))


def _listed(paths: list[Path]) -> str:
    return ", ".join(map(str, paths))


def _removal(lab: LabPaths, paths: list[Path]) -> tuple[str, Fix]:
    how = shlex.join(["rm", *map(str, paths)])
    return how, Fix(how, partial(_remove, lab, paths))


def stale_sockets(folder: Path) -> list[Path]:
    """The unix sockets in `folder` whose listener is gone: the kernel refuses a connection."""
    try:
        entries = sorted(folder.iterdir())
        return [path for path in entries if stat.S_ISSOCK(path.lstat().st_mode) and _is_refused(path)]
    except OSError:
        return []


def _is_refused(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_SOCKET_SECONDS)
        try:
            probe.connect(str(path))
        except OSError as refused:
            return refused.errno == errno.ECONNREFUSED
    return False


def _switches(facts: Facts) -> list[Path]:
    """Links `current.PID` that a switch made and, killed, did not rename; not those of a process that still runs."""
    assert facts.lab is not None
    links = facts.lab.environment.glob("current.*")
    return sorted(
        link for link in links
        if link.is_symlink() and link.suffix[1:].isdigit() and not (facts.system / "proc" / link.suffix[1:]).exists()
    )  # fmt: skip


def _remove(lab: LabPaths, paths: list[Path]) -> None:
    """Remove what is still stale: a daemon may have made its socket anew while the person was asked."""
    stale = set(stale_sockets(lab.run))
    for path in paths:
        if path in stale or path.is_symlink():
            path.unlink(missing_ok=True)
