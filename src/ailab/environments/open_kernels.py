"""Which kernels of a lab are open, and in which generation: each keeps the one that it started with."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ailab.paths import LabPaths, MachinePaths

_LAUNCHER = "ipykernel_launcher"


def open_kernels(lab: LabPaths, machine: MachinePaths) -> dict[str, int]:
    """How many kernels of the lab run in each generation, by its name; from what their command lines say: the Python,
    which is the generation's own, and the connection file, which is the lab's own."""
    found: Counter[str] = Counter()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            words = (process / "cmdline").read_text(errors="replace").split("\0")
        except OSError:
            continue
        if _LAUNCHER not in words or not any(Path(word).is_relative_to(lab.run) for word in words[1:]):
            continue
        generation = Path(words[0]).parent.parent
        if generation.parent == machine.generations.resolve() or generation.parent == machine.generations:
            found[generation.name] += 1
    return dict(sorted(found.items()))
