"""Preflight: whether a generation computes on the GPU, link by link of the chain, each with its remedy."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ailab import command
from ailab.environments import cuda
from ailab.environments.generations import Generation
from ailab.environments.kernel import build_again
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.stacks import CUDA_PLATFORM, Stack

PROBE = Path(__file__).with_name("gpu_probe.py")
LIBRARY_SECONDS = 120.0
# TensorFlow's own warning says of compiling from PTX that it "could take 30 minutes or longer"; twice that.
OPERATION_SECONDS = 3600.0
_CAPABILITY = re.compile(r"(sm|compute)_(\d+)(\d)")
# ld.so names first what it could not open: "libcublas.so.11: cannot open shared object file: ...".
_BLAMED = re.compile(r"^([^:\s]+\.so[^:\s]*):")
# The lines of TensorFlow's log that say why: warnings and errors.
_COMPLAINT = re.compile(r"^\S+ \S+: [WEF] ")
_LOG_LINES = 12


class State(StrEnum):
    passed = "passed"
    warning = "warning"
    failed = "failed"
    skipped = "skipped"


@dataclass(frozen=True)
class Check:
    """One link of the chain: `name` for programs, `message` and `remedy` for people."""

    name: str
    state: State
    message: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class GpuNotWorking(AilabError):
    """A GPU is required and cannot be computed on."""

    kind = "gpu"


def refuse_if_failed(checks: Sequence[Check]) -> None:
    """Raises `GpuNotWorking` with the first check that failed."""
    for check in checks:
        if check.state == State.failed:
            message = _('[environment] gpu is "required", and the GPU does not work: {why}').format(why=check.message)
            raise GpuNotWorking(message, remedy=check.remedy)


def cannot_serve(stack: Stack, machine: str) -> str:
    """Why this stack has no use for a GPU on this kind of machine ("x86_64"); empty where it has."""
    if stack.cuda is None:
        return _("The stack {stack} computes on the CPU only.").format(stack=stack.name)
    if machine != CUDA_PLATFORM:
        return _("CUDA libraries come for {platform} only; this machine is {machine}.").format(
            platform=CUDA_PLATFORM, machine=machine
        )
    return ""


def skipped(name: str) -> Check:
    return Check(name, State.skipped, _("not looked at: something before it is missing"))


def folder_of(generation: Generation) -> Path:
    return Path(generation.folder)


def driver_check(gpus: Sequence[str], version: str, why_not: tuple[str, str] | None) -> Check:
    """The first link, from what the resources' look at the driver found."""
    if why_not is not None:
        return Check("driver", State.failed, *why_not)
    text = _("{gpus}, driver {version}").format(gpus=", ".join(gpus), version=version)
    return Check("driver", State.passed, text)


def probe(generation: Generation, *words: str, timeout: float) -> command.Finished:
    """Run the probe with the generation's Python, as a `python train.py` of this account would run."""
    argv: list[str | Path] = [generation.program, "-I", PROBE, *words]
    return command.run(argv, timeout=timeout, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0"}, check=False)


def look(generation: Generation, stack: Stack) -> dict[str, Any]:
    """What the probe finds of the libraries and the build. Raises `AilabError` when the Python does not run."""
    names = stack.cuda.libraries if stack.cuda is not None else []
    done = probe(generation, "libraries", *names, timeout=LIBRARY_SECONDS)
    if done.status:
        message = _("The environment's Python cannot look for its libraries.")
        raise AilabError(message, remedy=build_again(), detail=done.output)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def missing(opened: Mapping[str, str]) -> dict[str, str]:
    """The libraries that are to blame, with the linker's words, from "" or an error for each that was opened.

    One that fails only because it needs another is not to blame: the other is.
    """
    blamed: dict[str, str] = {}
    for name, error in opened.items():
        if error:
            said = _BLAMED.match(error)
            blamed.setdefault(Path(said[1]).name if said else name, error)
    return blamed


def library_check(generation: Generation, stack: Stack, found: Mapping[str, Any]) -> Check:
    useless = cannot_serve(stack, platform.machine())
    if useless:
        return Check("libraries", State.failed, useless, _("Choose another stack: ailab env stacks"))
    if not cuda.is_among(stack, set(generation.packages)):
        message = _("The generation {id} has no CUDA libraries.").format(id=generation.id)
        remedy = _('They come with the next `ailab up` where a GPU is seen, or with [environment] gpu = "required".')
        return Check("libraries", State.failed, message, remedy)
    lacking = missing(found["libraries"])
    if lacking:
        message = _("{names} cannot be opened ({error}).").format(
            names=", ".join(lacking), error=next(iter(lacking.values()))
        )
        return Check("libraries", State.failed, message, _library_remedy(lacking, stack))
    count = len(found["libraries"])
    return Check("libraries", State.passed, _("all {count} open").format(count=count))


def _library_remedy(lacking: Mapping[str, str], stack: Stack) -> str:
    ours = stack.cuda.libraries if stack.cuda is not None else []
    if set(lacking) <= set(ours):
        return build_again()
    return _("It belongs to the system: install the package of your distribution that has it.")


def capability_check(capabilities: Mapping[str, str], built_for: Sequence[str], cache: str) -> Check:
    """Whether the build has code for each GPU: `capabilities` is name -> "8.6", `built_for` like ["sm_75",
    "compute_80"].

    Machine code runs on its own major version from its minor version on; PTX on everything newer, once the driver has
    compiled it (CUDA C++ Programming Guide, Compute capabilities and binary compatibility).
    """
    parsed = [match for match in map(_CAPABILITY.fullmatch, built_for) if match]
    code = [(int(match[2]), int(match[3])) for match in parsed if match[1] == "sm"]
    ptx = [(int(match[2]), int(match[3])) for match in parsed if match[1] == "compute"]
    compiled = []
    for name, text in capabilities.items():
        major, minor = (int(part) for part in text.split("."))
        if any(one[0] == major and one[1] <= minor for one in code):
            continue
        if not any(one <= (major, minor) for one in ptx):
            return _not_served(name, text, built_for)
        compiled.append(f"{name} ({text})")
    if not compiled:
        said = ", ".join(f"{name} ({text})" for name, text in capabilities.items())
        return Check("capability", State.passed, _("the build has machine code for {gpus}").format(gpus=said))
    message = _(
        "The build has no machine code for {gpus}: the driver compiles it from PTX at first use, which TensorFlow says"
        " can take 30 minutes or longer. That happens once; the result is kept in {cache}."
    ).format(gpus=", ".join(compiled), cache=cache or "~/.nv/ComputeCache")
    return Check("capability", State.warning, message)


def _not_served(name: str, capability: str, built_for: Sequence[str]) -> Check:
    message = _("{gpu} has compute capability {capability}, and the build serves {built_for} only.").format(
        gpu=name, capability=capability, built_for=", ".join(built_for)
    )
    return Check("capability", State.failed, message, _("Use another GPU, or a stack whose build serves this one."))


def operation_check(generation: Generation, *, timeout: float = OPERATION_SECONDS) -> Check:
    """A matrix product and a convolution on the first GPU, in a process of its own."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        message = _("CUDA_VISIBLE_DEVICES is {value}: it hides every GPU.").format(value=repr(hidden))
        return Check("operation", State.failed, message, _("Unset it: unset CUDA_VISIBLE_DEVICES"))
    done = probe(generation, "operation", timeout=timeout)
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        found = {}
    if found.get("right"):
        text = _("a product and a convolution on {gpu}, the first in {seconds:.1f} s")
        return Check("operation", State.passed, text.format(gpu=found["gpus"][0], seconds=found["seconds"]))
    if found.get("gpus"):
        message = _("The GPU computes wrong results.")
        return Check("operation", State.failed, message, _("Test the GPU itself, as with: nvidia-smi -q -d ECC"))
    why = last_words(done.output)
    message = (_("TensorFlow sees no GPU: {why}") if found else _("A real operation on the GPU failed: {why}")).format(
        why=why
    )
    return Check("operation", State.failed, message, _("See what the driver says: sudo dmesg; nvidia-smi"))


def last_words(output: str) -> str:
    """The line of TensorFlow's log, or of a traceback, that says most of why it failed."""
    lines = [line for line in output.strip().splitlines() if line.strip() and not line.startswith("{")]
    errors = [line for line in lines if re.match(r"\S*(Error|Exception)\b.*:", line)]
    complaints = [_COMPLAINT.sub("", line) for line in lines if _COMPLAINT.match(line)]
    return next(iter([*errors[-1:], *complaints[:1], *lines[-1:]]), "?")
