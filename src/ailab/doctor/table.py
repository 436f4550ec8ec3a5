"""The table of checks, in the order in which a person should read them, and the one function that runs it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

from ailab.doctor import certificates, containers, gpu, lab, leftovers, machine, network, permissions, processes
from ailab.doctor.facts import Facts
from ailab.doctor.findings import Check, Finding, Result, error, from_error
from ailab.doctor.redaction import redact
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.waiting import begin

# All checks run side by side and have ended, or are given up, after this many seconds.
PATIENCE_SECONDS = 3.0
_OF_BUILDS = ("disk", "inodes", "proxies", "dns", "certificates", "index", "npm", "python", "home", "builds",
              "engine", "container-gpu")  # fmt: skip


def machine_checks() -> tuple[Check, ...]:
    """What can be asked without a lab: would one work here?"""
    return (
        Check("system", _("System"), machine.operating_system),
        Check("libc", _("C library"), machine.c_library),
        Check("cpu", "CPU", machine.cpu),
        Check("memory", _("Memory"), machine.memory),
        Check("disk", _("Disk"), machine.disk),
        Check("inodes", _("Inodes"), machine.inodes),
        Check("clock", _("Clock"), network.clock),
        Check("proxies", _("HTTP proxy"), network.proxies),
        Check("dns", _("Names (DNS)"), network.names),
        Check("certificates", _("Certificates"), certificates.bundles),
        Check("index", _("Package index"), network.package_index),
        Check("npm", _("npm registry"), network.npm_registry),
        Check("python", "Python", lab.python),
        Check("gpu", "GPU", gpu.chain),
        Check("engine", _("Container engine"), containers.engine),
        Check("container-gpu", _("GPUs in containers"), containers.gpus),
        Check("private-network", _("Network of workers"), machine.private_network),
        Check("port", _("Web port"), lab.port),
        Check("home", "AILAB_HOME", permissions.machine_folders),
        Check("orphans", _("Processes of labs that are gone"), processes.orphans),
        Check("builds", _("Killed builds"), leftovers.builds),
    )


def lab_checks() -> tuple[Check, ...]:
    """What can be asked of a lab."""
    return (
        Check("settings", _("lab.toml and lab.lock"), lab.settings),
        Check("databases", _("Databases and secrets"), lab.databases),
        Check("debian-packages", _("Debian packages"), lab.debian_packages),
        Check("permissions", _("The lab's folders"), permissions.lab_folders),
        Check("processes", _("The lab's processes"), processes.tasks),
        Check("leftovers", _("What crashes left behind"), leftovers.files),
    )


def checks_for(facts: Facts) -> tuple[Check, ...]:
    """The checks that apply: without a lab only the machine's, and within an image none of what is built with."""
    checks = machine_checks() + (lab_checks() if facts.lab else ())
    return tuple(one for one in checks if one.name not in _OF_BUILDS) if facts.machine.image.exists() else checks


def run(checks: Sequence[Check], facts: Facts, patience: float = PATIENCE_SECONDS) -> tuple[Result, ...]:
    """All checks side by side, their results in the table's order. A check that breaks, or that has not ended after
    `patience` seconds, is a finding of its own. No secret passes."""
    started = time.monotonic()
    running = [(check, begin(lambda check=check: _timed(check, facts))) for check in checks]  # type: ignore[misc]
    return tuple(_result(check, ending, started + patience, patience) for check, ending in running)


def _timed(check: Check, facts: Facts) -> tuple[tuple[Finding, ...], float]:
    started = time.monotonic()
    return _look(check, facts), time.monotonic() - started


def _look(check: Check, facts: Facts) -> tuple[Finding, ...]:
    found: list[Finding] = []
    try:
        for finding in check.look(facts):
            found.append(finding)
    except AilabError as refused:
        found.append(from_error(refused))
    except PermissionError as refused:
        found.append(_closed(refused))
    except Exception as broken:
        found.append(_broken(broken))
    return tuple(_without_secrets(finding) for finding in found)


def _closed(refused: PermissionError) -> Finding:
    return error(
        _("This account may not look into {path}.").format(path=refused.filename or "-"),
        str(refused),
        _("Run the doctor as the account that the lab belongs to, or as root."),
    )


def _broken(broken: Exception) -> Finding:
    """A check must not take the others with it. Where it broke is the evidence."""
    trace = broken.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace is not None else ""
    return error(
        _("This check itself broke."),
        f"{type(broken).__name__}: {broken}{place}",
        _("Report it: ailab doctor --report FILE writes what is needed."),
    )


def _without_secrets(finding: Finding) -> Finding:
    texts = {name: redact(getattr(finding, name)) for name in ("message", "evidence", "remedy")}
    return replace(finding, **texts)  # type: ignore[arg-type]  # the three are texts


def _result(
    check: Check, ending: Future[tuple[tuple[Finding, ...], float]], deadline: float, patience: float
) -> Result:
    try:
        findings, seconds = ending.result(max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        late = error(
            _("This check did not end within {seconds:g} s.").format(seconds=patience),
            remedy=_("Is the machine overloaded, or a network disk gone? Try again: ailab doctor"),
        )
        return Result(check.name, check.title, (late,), patience)
    return Result(check.name, check.title, findings, seconds)
