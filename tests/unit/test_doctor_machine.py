"""The doctor's checks of the machine: each sees its bad case, made for real where this machine lets us."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from patients import a_lab, facts_of, severities, system

from ailab.doctor import lab, machine, permissions
from ailab.doctor.findings import Severity
from ailab.errors import AilabError

OK, WARNING, ERROR = Severity.ok, Severity.warning, Severity.error
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, which needs root: full disks were not tried")


def test_this_machine_is_fine(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    for check in (machine.operating_system, machine.c_library, machine.cpu, machine.memory):
        assert severities(check(facts)) == [OK]


@pytest.mark.parametrize(
    ("libc", "said"), [("glibc 2.17", "too old"), ("", "not glibc"), ("glibc 2.28", ""), ("glibc 2.40.9000", "")]
)
def test_the_c_library(tmp_path: Path, libc: str, said: str) -> None:
    found = list(machine.c_library(facts_of(tmp_path, libc=libc)))
    assert severities(found) == [ERROR if said else OK]
    assert said in found[0].message and bool(found[0].remedy) == bool(said)


def test_a_platform_without_packages(tmp_path: Path) -> None:
    facts = facts_of(tmp_path / "home")
    assert severities(machine.operating_system(replace(facts, architecture="riscv64"))) == [ERROR]
    mac = system(tmp_path / "mac", proc__sys__kernel__ostype="Darwin\n")
    assert severities(machine.operating_system(replace(facts, system=mac))) == [ERROR]


def test_a_cpu_without_avx_is_told_what_needs_it(tmp_path: Path) -> None:
    old = system(tmp_path / "old", proc__cpuinfo="model name\t: Celeron\nflags\t\t: fpu sse2 sse4_2\n")
    facts = facts_of(tmp_path / "home", system=old, architecture="x86_64")
    assert "tensorflow" in facts.packages, "the default stack is TensorFlow's"
    found = list(machine.cpu(facts))
    assert severities(found) == [ERROR] and "avx" in found[0].message and "tensorflow" in found[0].message
    assert found[0].evidence == "Celeron"
    assert severities(machine.cpu(replace(facts, packages=frozenset({"numpy"})))) == [OK]
    assert severities(machine.cpu(replace(facts, architecture="aarch64"))) == [OK]


@pytest.mark.parametrize(
    ("total", "available", "limit", "severity"),
    [(8_000_000, 6_000_000, "max", OK), (8_000_000, 500_000, "max", WARNING), (900_000, 800_000, "max", ERROR),
     (8_000_000, 6_000_000, "536870912", ERROR), (8_000_000, 6_000_000, "1500000000", WARNING)],
)  # fmt: skip
def test_memory_counts_the_containers_limit(
    tmp_path: Path, total: int, available: int, limit: str, severity: Severity
) -> None:
    text = f"MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n"
    tree = system(tmp_path / "tree", proc__meminfo=text, **{"sys__fs__cgroup__memory.max": f"{limit}\n"})
    assert severities(machine.memory(facts_of(tmp_path / "home", system=tree))) == [severity]


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs of the test's own."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.root
@needs_root
def test_a_full_disk_and_no_inodes(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=8m,nr_inodes=100") as home:
        (home / "large").write_bytes(b"x" * 7_000_000)
        facts = facts_of(home / "deep" / "home")
        disk, inodes = list(machine.disk(facts)), list(machine.inodes(facts))
        assert (
            severities(disk)[0] == ERROR
            and str(home) in disk[0].evidence
            and f"du -xh --max-depth=2 {home}" in disk[0].remedy
        )
        assert severities(inodes)[0] == ERROR and "--inodes" in inodes[0].remedy
        assert ERROR not in severities(machine.disk(facts))[1:], "the disk of /tmp is another"


@pytest.mark.root
@needs_root
def test_too_little_room_for_an_environment_is_a_warning(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=1g,nr_inodes=20000") as home:
        facts = facts_of(home)
        assert severities(machine.disk(facts))[0] == WARNING
        assert severities(machine.inodes(facts))[0] == WARNING


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(("options", "said"), [("ro", "read-only"), ("noexec", "noexec")])
def test_mounts_that_will_not_do(tmp_path: Path, options: str, said: str) -> None:
    with mounted(tmp_path / "disk", options) as home:
        wrong = [
            finding for finding in machine.disk(facts_of(home)) if finding.severity == ERROR and said in finding.message
        ]
        assert len(wrong) == 1 and "mount -o remount" in wrong[0].remedy and str(home) in wrong[0].remedy


@pytest.mark.root
@needs_root
def test_a_cache_on_another_file_system(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    with mounted(tmp_path / "cache", "size=1m"):
        assert "two file systems" in " ".join(finding.message for finding in machine.disk(facts_of(tmp_path)))


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    assert severities(permissions.machine_folders(facts_of(tmp_path / "home"))) == [OK]
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    # Modes mean nothing to root: for it, the disk says no.
    with mounted(closed, "ro") if os.geteuid() == 0 else nullcontext():
        found = list(permissions.machine_folders(facts_of(closed)))
    assert set(severities(found)) == {ERROR} and "AILAB_HOME" in found[0].remedy


@pytest.mark.parametrize("python", ["/bin/true", "/nonexistent/python3", "/etc/passwd"])
def test_an_interpreter_that_is_none(tmp_path: Path, python: str) -> None:
    paths = a_lab(tmp_path / "lab", f'[environment]\nstack = "science"\npython = "{python}"\n')
    with pytest.raises(AilabError) as refused:
        facts_of(tmp_path / "home", paths).probes.python()
    assert python in refused.value.message and refused.value.remedy


def test_no_interpreter_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = list(lab.python(facts_of(tmp_path / "home", a_lab(tmp_path / "lab"))))
    assert severities(found) == [WARNING] and "3.11" in found[0].evidence and "ailab up" in found[0].remedy
