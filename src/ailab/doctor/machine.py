"""The machine itself: system, C library, CPU, memory, disk, inodes, namespaces."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from ailab.doctor.facts import Facts
from ailab.doctor.findings import Finding, error, fine, warning
from ailab.errors import AilabError
from ailab.i18n import _

MB = 10**6
GB = 10**9
# The oldest glibc that today's wheels of pandas, NumPy and Node are built for: their tag is manylinux_2_28.
OLDEST_GLIBC = (2, 28)
# What the x86-64 wheels were compiled to use, by /proc/cpuinfo's names; without it a program ends with "Illegal
# instruction". TensorFlow's releases since 1.6: AVX. NumPy since 2.4: x86-64-v2, whose last is SSE4.2
# (`__cpu_baseline__` of its wheels).
CPU_FLAGS = {"tensorflow": "avx", "numpy": "sse4_2"}
# Hub, proxy, TensorBoard and a Jupyter server take about 420 MB, a kernel with TensorFlow 390 MB more.
LEAST_MEMORY = 1 * GB
GOOD_MEMORY = 2 * GB
# An environment with TensorFlow: about 2 GB and 30,000 files; the cache holds the same files once (hardlinks).
ROOM_FOR_ENVIRONMENT = 3 * GB
ROOM_TO_WORK = 200 * MB
FILES_OF_ENVIRONMENT = 60_000
FILES_TO_WORK = 1_000


def operating_system(facts: Facts) -> Iterator[Finding]:
    kernel = facts.read("proc/sys/kernel/ostype").strip() + " " + facts.read("proc/sys/kernel/osrelease").strip()
    name = next(
        (line.partition("=")[2].strip('"') for line in facts.read("etc/os-release").splitlines()
         if line.startswith("PRETTY_NAME=")), kernel.strip(),
    )  # fmt: skip
    if not kernel.startswith("Linux"):
        yield error(
            _("ailab runs on Linux only."), kernel, _("Use a Linux machine, a virtual machine, or WSL 2 on Windows.")
        )
    elif facts.architecture not in facts.architectures:
        yield error(
            _("The stack has no packages for {architecture}.").format(architecture=facts.architecture),
            ", ".join(facts.architectures),
            _("Choose another stack (ailab env stacks), or another machine."),
        )
    else:
        yield fine(f"{name}, {facts.architecture}", kernel)


def c_library(facts: Facts) -> Iterator[Finding]:
    name, _space, version = facts.libc.partition(" ")
    if name != "glibc":
        yield error(
            _("This system's C library is not glibc: the packages of the stack are built for glibc."),
            facts.libc,
            _("Use Debian, Ubuntu, Fedora or the like; Alpine will not do."),
        )
    elif tuple(int(part) for part in version.split(".")[:2]) < OLDEST_GLIBC:
        oldest = ".".join(map(str, OLDEST_GLIBC))
        yield error(
            _("glibc {version} is too old: today's packages need {oldest}.").format(version=version, oldest=oldest),
            facts.libc,
            _("Update the system: Debian 10, Ubuntu 20.04, RHEL 8 or newer have it."),
        )
    else:
        yield fine(facts.libc)


def cpu(facts: Facts) -> Iterator[Finding]:
    lines = dict(line.split(":", 1) for line in facts.read("proc/cpuinfo").splitlines() if ":" in line)
    values = {key.strip(): value.strip() for key, value in lines.items()}
    model = values.get("model name", facts.architecture)
    flags = set(values.get("flags", "").split())
    wanted = {flag: package for package, flag in CPU_FLAGS.items() if package in facts.packages}
    lacking = [flag for flag in wanted if flag not in flags]
    if facts.architecture != "x86_64" or not flags:
        yield fine(model)
    for flag in lacking if flags and facts.architecture == "x86_64" else ():
        yield error(
            _(
                "This CPU has no {flag}, which {package} was compiled to use: it would end with Illegal instruction."
            ).format(flag=flag, package=wanted[flag]),
            model,
            _("Use a newer machine. In a virtual machine, pass the host's CPU on (libvirt: host-passthrough)."),
        )
    if flags and facts.architecture == "x86_64" and not lacking:
        yield fine(model, " ".join(sorted(wanted)))


def memory(facts: Facts) -> Iterator[Finding]:
    sizes = {
        line.split(":")[0]: int(line.split()[1]) * 1024
        for line in facts.read("proc/meminfo").splitlines() if line.endswith(" kB")
    }  # fmt: skip
    limit = _cgroup_limit(facts)
    total = min(sizes["MemTotal"], limit or sizes["MemTotal"])
    available = min(sizes["MemAvailable"], total)
    seen = _("{available} of {total} GB available").format(
        available=round(available / GB, 1), total=round(total / GB, 1)
    )
    if limit and limit < sizes["MemTotal"]:
        seen += " (" + _("limited by the container or its control group") + ")"
    if total < LEAST_MEMORY:
        yield error(
            _("There is too little memory for a lab."), seen, _("Give the machine or the container 2 GB or more.")
        )
    elif available < LEAST_MEMORY or total < GOOD_MEMORY:
        yield warning(
            _("Memory is short: a lab with one kernel takes about 1 GB."),
            seen,
            _("See what takes it: ps aux --sort=-rss | head"),
        )
    else:
        yield fine(seen)


def _cgroup_limit(facts: Facts) -> int:
    """The memory that this process's container may take, in bytes (cgroup v2, else v1); 0: no limit."""
    for file in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = facts.read(file).strip()
        if text.isdigit():
            return int(text)
    return 0


def disk(facts: Facts) -> Iterator[Finding]:
    for folder in _file_systems(facts):
        yield from _usable(folder) or [_room(folder, facts)]
    yield from _mountings(facts)


def _room(folder: Path, facts: Facts) -> Finding:
    seen = os.statvfs(folder)
    free = seen.f_bavail * seen.f_frsize
    evidence = _("{free} GB free in {folder}").format(free=round(free / GB, 1), folder=folder)
    if free < ROOM_TO_WORK:
        return error(_("The disk is full."), evidence, _large_files(folder))
    if free < ROOM_FOR_ENVIRONMENT and folder == existing(facts.machine.home):
        return warning(
            _("There is little room for another environment: one with TensorFlow takes 2 to 3 GB."),
            evidence,
            _("Make room, or set AILAB_HOME to a folder on a larger disk."),
        )
    return fine(evidence)


def _usable(folder: Path) -> list[Finding]:
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return [
            error(
                _("{folder} is mounted read-only.").format(folder=folder),
                remedy=_("Look why: dmesg | tail. Mount it anew: mount -o remount,rw {mount}").format(
                    mount=_mount_point(folder)
                ),
            )
        ]
    return []


def _mountings(facts: Facts) -> Iterator[Finding]:
    """AILAB_HOME holds programs, and hardlinks from its cache."""
    home = existing(facts.machine.home)
    if os.statvfs(home).f_flag & os.ST_NOEXEC:
        yield error(
            _("Programs cannot run from {folder}: it is mounted noexec.").format(folder=home),
            remedy=_("Set AILAB_HOME to another folder, or: mount -o remount,exec {mount}").format(
                mount=_mount_point(home)
            ),
        )
    cache, generations = existing(facts.machine.cache), existing(facts.machine.generations)
    if cache.stat().st_dev != generations.stat().st_dev:
        yield warning(
            _("The cache and the environments are on two file systems: each environment is a full copy."),
            f"{cache}, {generations}",
            _("Keep both below AILAB_HOME, without a mount of their own."),
        )


def inodes(facts: Facts) -> Iterator[Finding]:
    for folder in _file_systems(facts):
        seen = os.statvfs(folder)
        evidence = _("{free} files can be made in {folder}").format(free=seen.f_favail, folder=folder)
        if not seen.f_files:
            yield fine(_("{folder} has no limit on files.").format(folder=folder))
        elif seen.f_favail < FILES_TO_WORK:
            yield error(_("The disk has no inodes left: no file can be made."), evidence, _many_files(folder))
        elif seen.f_favail < FILES_OF_ENVIRONMENT and folder == existing(facts.machine.home):
            yield warning(
                _("There are few inodes for another environment: one with TensorFlow has 30,000 files."),
                evidence,
                _many_files(folder),
            )
        else:
            yield fine(evidence)


def _file_systems(facts: Facts) -> list[Path]:
    """One folder on each file system that ailab writes to, AILAB_HOME first."""
    folders = [facts.machine.home, *([facts.lab.root] if facts.lab else []), facts.temporary]
    found: dict[int, Path] = {}
    for folder in map(existing, folders):
        found.setdefault(folder.stat().st_dev, folder)
    return list(found.values())


def existing(folder: Path) -> Path:
    """`folder`, or the nearest one above it that is there and that we may look at."""
    for path in (folder, *folder.parents):
        try:
            path.stat()
        except OSError as refused:
            if refused.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                continue
            raise
        return path
    raise AssertionError("the root is there")


def _mount_point(folder: Path) -> Path:
    return next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_mount())


def _large_files(folder: Path) -> str:
    return _("See what takes it: du -xh --max-depth=2 {mount} | sort -h | tail").format(mount=_mount_point(folder))


def _many_files(folder: Path) -> str:
    return _("See where they are: du -x --inodes --max-depth=2 {mount} | sort -n | tail").format(
        mount=_mount_point(folder)
    )


def private_network(facts: Facts) -> Iterator[Finding]:
    """Jobs of several workers alone need it, and they can do without it."""
    try:
        facts.probes.private_network()
    except AilabError as refused:
        yield warning(refused.message, refused.detail, refused.remedy)
    else:
        yield fine(_("Workers that connect to each other have a private network."))
