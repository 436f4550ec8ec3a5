"""What the doctor looks at, gathered: the facts of the machine and the lab, and what only other parts can tell."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ailab
from ailab import bringup, downloads, engine, engine_gpus, provision, shutdown
from ailab.client import Client
from ailab.doctor.facts import Daemon, Facts, Graphics, Probes
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.lab import Lab
from ailab.paths import LabPaths, MachinePaths, default_lab
from ailab.runtimes.container import TASK_LABEL
from ailab.settings import Settings
from ailab.settings_file import load_settings
from ailab.waiting import TimedOut, wait_for

if TYPE_CHECKING:
    from ailab.resources.driver import Driver
    from ailab.stacks import Stack

PYPI = "https://pypi.org/simple"
NPM = "https://registry.npmjs.org"
_ANSWER_SECONDS = 2.0
_EVENTS = 50
# A panic's trace is some hundred lines.
_ENGINE_LOG_LINES = 1000
_ENGINE_LOG_BYTES = 200_000
# Whose versions a bug report shows, beside ailab's own.
_SHOWN = ("jupyterhub", "jupyterlab", "fastapi", "pydantic", "sqlalchemy")


def gather(root: Path | None, environ: Mapping[str, str]) -> Facts:
    """The facts for the lab at `root`, or for this machine alone. A lab.toml that cannot be read is one of the
    findings; the other checks then go by the defaults."""
    from packaging.requirements import Requirement

    from ailab.access import tools
    from ailab.runtimes.registry import uses_engine

    machine = MachinePaths.from_environment(environ)
    lab = Lab(LabPaths(root or default_lab(environ)), machine, _settings(root))
    stack, network = _stack(lab), downloads.variables(lab.settings.mirrors, environ)
    environments = lab.generations.current() if root else next(iter(lab.generations.list()), None)
    return Facts(
        settings=lab.settings,
        machine=machine,
        lab=lab.paths if root else None,
        network=network,
        index=network.get("UV_DEFAULT_INDEX", PYPI),
        registry=network.get("npm_config_registry", NPM),
        packages=frozenset(Requirement(package).name for package in stack.packages),
        architectures=tuple(stack.platforms),
        pythons=tuple(stack.pythons),
        architecture=platform.machine(),
        libc=_libc(),
        uid=os.geteuid(),
        now=time.time(),
        installed=Path(ailab.__file__).stat().st_mtime,
        # Not tempfile's: that asks for room to write, of which the disk checks tell.
        temporary=Path(environ.get("TMPDIR") or "/tmp"),  # noqa: S108
        lacks_environment=environments is None,
        lacks_tools=tools.missing(machine),
        needs_engine=uses_engine(lab.settings.lab.runtime),
        probes=probes_of(lab, stack),
    )


def probes_of(lab: Lab, stack: Stack) -> Probes:
    """The questions to the other parts, bound to one lab (the default one where there is none)."""
    from ailab.environments import halves

    generations = lab.machine.generations
    return Probes(
        settings=lambda: _read_lab(lab),
        python=lambda: _python(lab, stack),
        port=lambda: bringup.check_port(lab),
        graphics=lambda: _graphics(stack),
        daemon=lambda: _daemon(lab),
        running=lambda: _running(lab),
        halves=lambda: halves.find_halves(generations),
        remove_halves=lambda: halves.remove_halves(generations),
        engine=_engine,
        engine_log=_engine_log,
        engine_gpus=lambda: engine_gpus.means(_engine()),
        private_network=lambda: _private_network(lab),
        lost_gpus=lambda: engine_gpus.lost(engine.connect(_ANSWER_SECONDS), TASK_LABEL),
    )


def _private_network(lab: Lab) -> None:
    from ailab.runtimes.base import TaskKind

    refusal = lab.runtime.no_private_network(TaskKind.job)
    if refusal is not None:
        raise refusal


def _engine() -> dict[str, Any]:
    client = engine.connect(_ANSWER_SECONDS)
    with engine.told():
        return dict(client.info())


def _engine_log() -> str:
    """The end of Docker Engine's log: systemd keeps it, or a file of Debian's start script."""
    from ailab import command

    try:
        words = ["journalctl", "--unit", "docker", "--lines", str(_ENGINE_LOG_LINES), "--output", "cat", "--no-pager"]
        kept = command.run(words, timeout=_ANSWER_SECONDS, check=False).stdout
    except AilabError:
        kept = ""
    try:
        return kept or Path("/var/log/docker.log").read_text(encoding="utf-8", errors="replace")[-_ENGINE_LOG_BYTES:]
    except OSError:
        return ""


def _settings(root: Path | None) -> Settings:
    try:
        return load_settings(LabPaths(root).settings) if root else Settings()
    except AilabError:
        return Settings()


def _stack(lab: Lab) -> Stack:
    from ailab.stacks import load_stack

    try:
        return provision.lab_stack(lab)
    except AilabError:
        return load_stack(Settings().environment.stack)


def _read_lab(lab: Lab) -> None:
    """Raises what is wrong with lab.toml, with the stack that it names, or with lab.lock."""
    from ailab.environments.lock import read_lock

    provision.lab_stack(Lab.open(lab.paths.root))
    read_lock(lab.paths.lock)


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return ""


def _python(lab: Lab, stack: Stack) -> str:
    """The interpreter that a build would take; empty where it would have to be fetched, which is not done here."""
    from ailab.environments import interpreters

    wish = lab.settings.environment.python
    found = interpreters.present(stack, wish, lab.machine.pythons, Path.home())
    return f"{found.version}, {found.program}" if found else ""


def graphics_of(seen: Driver, stack: Stack) -> Graphics:
    """What was seen of the driver, for the doctor; `stack` says how new it has to be."""
    from ailab.resources import driver

    names = tuple(f"{gpu.name} ({gpu.memory_bytes // 2**20} MiB, {gpu.driver})" for gpu in seen.gpus)
    signs = [f"NVIDIA {seen.module}" if seen.module else "", seen.nvml if not seen.gpus else ""]
    signs += [f"{path}: {refused or 'ok'}" for path, refused in seen.devices.items()]
    needed = stack.cuda.driver if stack.cuda is not None else "0"
    return Graphics(names, seen.is_there, "; ".join(filter(None, signs)), driver.why_not(seen, needed))


def _graphics(stack: Stack) -> Graphics:
    from ailab.resources import driver

    return graphics_of(driver.look(), stack)


def _daemon(lab: Lab) -> Daemon:
    """Who holds the daemon's lock, and whether it answers; one that has just been started gets the time to."""
    try:
        pid = shutdown.daemon_pid(lab)
    except PermissionError:
        return Daemon(None, answers=False)
    if pid is None:
        return Daemon(None, answers=False)
    client = Client(lab.paths.daemon_socket, timeout=_ANSWER_SECONDS)
    try:
        wait_for(lambda: bringup.daemon_status(client), timeout=_ANSWER_SECONDS, what=_("the lab's daemon to answer"))
    except TimedOut:
        return Daemon(pid, answers=False)
    return Daemon(pid, answers=True)


def _running(lab: Lab) -> tuple[str, ...]:
    return tuple(shutdown.running_tasks(lab))


def versions(facts: Facts) -> dict[str, str]:
    """What a bug report says first."""
    shown = {"written": datetime.now(UTC).isoformat(timespec="seconds"), "ailab": ailab.__version__}
    shown |= {"python": platform.python_version(), "system": platform.platform(), "libc": facts.libc or "not glibc"}
    for name in _SHOWN:
        try:
            shown[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    shown["uv"] = _uv_version(facts)
    shown |= {"stack": facts.settings.environment.stack, "AILAB_HOME": str(facts.machine.home)}
    if facts.lab is not None:
        shown |= {"lab": str(facts.lab.root), "generation": _generation(facts.lab)}
    return shown


def _uv_version(facts: Facts) -> str:
    from ailab import command
    from ailab.environments.uv import Uv

    try:
        program = Uv(facts.machine, facts.settings.mirrors).program
        return f"{command.run([program, '--version'], timeout=5).stdout.strip()}, {program}"
    except (AilabError, OSError, ImportError) as refused:
        return f"none: {refused}"


def _generation(lab: LabPaths) -> str:
    try:
        return lab.current.resolve(strict=True).name
    except OSError:
        return "none"


def newest_events(lab: LabPaths) -> list[dict[str, Any]] | str:
    """The newest events, oldest last, read past the daemon (which may be what is broken); else why there are none."""
    import sqlite3
    from contextlib import closing

    try:
        with closing(sqlite3.connect(f"{lab.database.as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute("SELECT * FROM events ORDER BY id DESC LIMIT ?", (_EVENTS,)).fetchall()
            return [dict(row) for row in rows]
    except sqlite3.Error as refused:
        return f"(none: {refused})"
