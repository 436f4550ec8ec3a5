"""Markers made short: what uv writes for every system that there is, said for those that a stack has."""

from __future__ import annotations

from collections.abc import Sequence

from packaging.markers import Marker


def target(python: str, machine: str) -> dict[str, str]:
    """A Linux machine with CPython `python` ("3.10.13"), as markers see it (PEP 508)."""
    return {
        "implementation_name": "cpython",
        "implementation_version": python,
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
        "sys_platform": "linux",
    }


def simplify(marker: str, pythons: Sequence[str], machines: Sequence[str]) -> str | None:
    """A short marker that agrees with `marker` for these Pythons ("3.10") and machines.

    Empty where it holds for all of them, None where it holds for none. A marker that tells patch releases of one
    Python apart is left as it is.
    """
    if not marker:
        return ""
    parsed = Marker(marker)
    holds: set[tuple[str, str]] = set()
    for python in pythons:
        for machine in machines:
            answers = {parsed.evaluate(target(f"{python}.{patch}", machine)) for patch in (0, 1, 99)}
            if len(answers) == 2:
                return marker
            if answers == {True}:
                holds.add((python, machine))
    if not holds:
        return None
    if len(holds) == len(pythons) * len(machines):
        return ""
    return _render(holds, pythons, machines)


def _render(holds: set[tuple[str, str]], pythons: Sequence[str], machines: Sequence[str]) -> str:
    versions = sorted({python for python, _machine in holds}, key=lambda text: int(text.split(".")[1]))
    kinds = sorted({machine for _python, machine in holds})
    if len(holds) != len(versions) * len(kinds):
        pairs = sorted(holds, key=lambda pair: (int(pair[0].split(".")[1]), pair[1]))
        return _either([f"(python_version == '{one}' and platform_machine == '{two}')" for one, two in pairs])
    parts = []
    if len(versions) < len(pythons):
        parts.append(_either([f"python_version == '{version}'" for version in versions]))
    if len(kinds) < len(machines):
        parts.append(_either([f"platform_machine == '{kind}'" for kind in kinds]))
    if len(parts) == 1:
        return parts[0]
    return " and ".join(f"({part})" if " or " in part else part for part in parts)


def _either(parts: list[str]) -> str:
    return " or ".join(parts)
