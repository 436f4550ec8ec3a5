"""CUDA libraries in a generation: linked where TensorFlow looks, so that no variable and no system CUDA is needed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement

from ailab import files
from ailab.environments import ailab_cuda, installed
from ailab.stacks import Stack

# What the group takes on disk, unpacked.
NEEDED_MB = 3100


def is_among(stack: Stack, names: set[str]) -> bool:
    """Whether the whole CUDA group of the stack is among the packages `names`."""
    return stack.cuda is not None and {Requirement(one).name for one in stack.cuda.packages} <= names


def install(generation: Path, aliases: Mapping[str, str], cache: Path) -> list[Path]:
    """After the packages are installed: link the libraries, and let each Python of the generation know of the rest.

    `aliases` are the stack's; `cache` is the machine's folder for kernels that the driver compiles. Doing it again
    changes nothing. Returns what was put there beside the packages.
    """
    site = installed.site_packages(generation)
    wanted = {site / "tensorflow" / name: target for name, target in links(site, aliases).items()}
    for link, target in wanted.items():
        _link(link, target)
    cache.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ailab_cuda.__file__, site / "ailab_cuda.py")
    (site / "ailab_cuda.pth").write_text(f"import ailab_cuda; ailab_cuda.prepare({str(cache)!r})\n", encoding="utf-8")
    return [*wanted, site / "ailab_cuda.py", site / "ailab_cuda.pth"]


def links(site: Path, aliases: Mapping[str, str]) -> dict[str, str]:
    """The links that belong beside libtensorflow_framework.so, name -> relative target.

    Its RUNPATH is $ORIGIN, and so is that of the libraries themselves: beside it, all of them find each other.
    """
    found = {path.name: f"../{path.relative_to(site)}" for path in sorted(site.glob("nvidia/*/lib/*.so*"))}
    return found | {alias: found[name] for alias, name in aliases.items() if name in found}


def link_driver(generation: Path, library: str) -> None:
    """Link libcuda.so, which cuDNN opens by that name while most drivers install libcuda.so.1 only, to `library`.

    The driver is the machine's and may move; so this is done again whenever the GPU is looked at.
    """
    if library:
        link = installed.site_packages(generation) / "tensorflow" / "libcuda.so"
        _link(link, library)
        installed.note_added(generation, [link])


def _link(link: Path, target: str) -> None:
    """A link that is there at every moment, also for a Python that starts now."""
    if link.is_symlink() and str(link.readlink()) == target:
        return
    files.replace_link(link, target)
