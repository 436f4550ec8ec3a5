"""Processes that nobody looks after: tasks without a daemon, a daemon that hangs, shims of labs that are gone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from ailab.doctor.facts import Facts
from ailab.doctor.findings import Finding, error, fine, warning
from ailab.i18n import _

_SHIM = "/ailab/runtimes/shim.py"
_DAEMON = "ailab.daemon.main"


def tasks(facts: Facts) -> Iterator[Finding]:
    """Whether what runs of the lab is looked after."""
    daemon, running = facts.probes.daemon(), facts.probes.running()
    names = ", ".join(running)
    if daemon.pid is not None and not daemon.answers:
        yield error(
            _("The lab's daemon does not answer."),
            f"pid {daemon.pid}",
            _("Stop the lab and start it again: ailab down, then ailab up"),
        )
    elif daemon.pid is not None:
        yield fine(_("The daemon answers."), f"pid {daemon.pid}; {names}")
    elif running:
        yield warning(
            _("Tasks run without the lab's daemon: nobody would start them again."),
            names,
            _("Look after them again: ailab up. Or stop them: ailab down"),
        )
    else:
        yield fine(_("The lab is stopped."))


def orphans(facts: Facts) -> Iterator[Finding]:
    """Shims and daemons whose folder was removed under them: no command finds them any more."""
    left = sorted(pid for pid, folder in _ours(facts) if not folder.exists())
    if not left:
        yield fine(_("None."))
        return
    pids = " ".join(map(str, left))
    yield warning(
        _("Processes of labs whose folder is gone still run."),
        "; ".join(f"{pid}: {' '.join(_words(facts, pid))}" for pid in left[:3]),
        f"kill {pids}",
    )


def _ours(facts: Facts) -> Iterator[tuple[int, Path]]:
    """The shims and daemons of this account (for root: of all), each with the folder that it works on."""
    for entry in (facts.system / "proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            mine = facts.uid in (0, entry.stat().st_uid)
        except OSError:
            continue
        words = _words(facts, int(entry.name)) if mine and not _is_in_a_container(facts, entry) else []
        for word, folder in pairwise(words):
            # With an option instead of a folder, a shim tries something out and ends.
            is_shim = word.endswith(_SHIM) and not folder.startswith("--")
            if is_shim or (word == "--lab" and _DAEMON in words):
                yield int(entry.name), Path(folder)


def _is_in_a_container(facts: Facts, process: Path) -> bool:
    """Whether a process sees other files than we do: a folder that it names is not to be looked for here."""
    try:
        return (process / "ns/mnt").readlink() != (facts.system / "proc/self/ns/mnt").readlink()
    except OSError:
        return False


def _words(facts: Facts, pid: int) -> list[str]:
    return facts.read(f"proc/{pid}/cmdline").rstrip("\0").split("\0")
