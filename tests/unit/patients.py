"""Machines and labs for the doctor's tests: this one's facts, with what a test changes."""

from __future__ import annotations

import atexit
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ailab import checkup
from ailab.doctor.facts import Facts
from ailab.doctor.findings import Finding, Severity
from ailab.paths import LabPaths, private_folder


def a_lab(folder: Path, settings: str = "") -> LabPaths:
    """A lab that has been started once: lab.toml, and its private folders as the daemon makes them."""
    paths = LabPaths(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths.settings.write_text(settings or '[environment]\nstack = "science"\n', encoding="utf-8")
    # It stands elsewhere, so that it does not go with the test's own folder.
    atexit.register(shutil.rmtree, paths.run, ignore_errors=True)
    for private in (*paths.private_folders, paths.run):
        private_folder(private)
    return paths


def facts_of(home: Path, lab: LabPaths | None = None, **changes: Any) -> Facts:
    """The facts as the command gathers them, of an AILAB_HOME of the test's own; no proxy, no certificates."""
    variables = {"AILAB_HOME": str(home), "HOME": str(home)}
    facts = checkup.gather(lab.root if lab else None, variables)
    return replace(facts, **changes)


def severities(findings: Iterable[Finding]) -> list[Severity]:
    return [finding.severity for finding in findings]


def system(folder: Path, **files: str) -> Path:
    """A tree of /proc, /sys and /etc with these files; `__` in a name stands for `/`."""
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def as_nobody(look: Callable[[], str]) -> str:
    """What `look` says in an account without privileges: to root, modes mean nothing."""
    if os.geteuid() != 0:
        return look()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        os.write(writer, look().encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as said:
        return said.read()
