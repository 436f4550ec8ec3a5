"""The GPU of a lab: whether its environment gets CUDA libraries, and whether it computes there; `gpu` in lab.toml."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ailab.errors import UsageError
from ailab.i18n import _
from ailab.lab import Lab
from ailab.settings_file import refusal_at

if TYPE_CHECKING:
    from ailab.environments.generations import Generation
    from ailab.environments.gpu import Check
    from ailab.resources.driver import Driver
    from ailab.stacks import Stack

Tell = Callable[[str], None]


def wants_cuda(lab: Lab, stack: Stack, tell: Tell) -> bool:
    """Whether the environment is to have the CUDA group, by `gpu` in lab.toml and what this machine has.

    "auto" never refuses, but tells of a GPU that cannot be used. "required" raises `UsageError` where the stack cannot
    use one, and `GpuNotWorking` where the driver does not serve one: before anything is downloaded.
    """
    from ailab.environments import gpu
    from ailab.resources import driver

    setting = lab.settings.environment.gpu
    if setting == "off":
        return False
    useless = gpu.cannot_serve(stack, platform.machine())
    if useless and setting == "required":
        error = UsageError(useless, remedy=_('Set it to "auto", or choose another stack: ailab env stacks'))
        raise refusal_at(lab.paths.settings, ("environment", "gpu"), error)
    if useless or stack.cuda is None:
        return False
    seen = driver.look()
    check = _driver_check(seen, stack)
    if setting == "required":
        gpu.refuse_if_failed([check])
    elif check.state == gpu.State.failed and seen.is_there:
        tell(_("The GPU is not used: {why}").format(why=check.message))
        tell(check.remedy)
    return check.state != gpu.State.failed


def _driver_check(seen: Driver, stack: Stack) -> Check:
    from ailab.environments import gpu
    from ailab.resources import driver

    needed = stack.cuda.driver if stack.cuda is not None else "0"
    version = seen.gpus[0].driver if seen.gpus else ""
    return gpu.driver_check([one.name for one in seen.gpus], version, driver.why_not(seen, needed))


def examine(generation: Generation, stack: Stack, *, operate: bool = True) -> tuple[list[Check], Driver]:
    """The four checks in their order, and what was seen of the driver. One whose ground is missing is skipped.

    `operate` runs the last one, which takes seconds, and where the driver compiles kernels first, many minutes.
    """
    from ailab.environments import cuda, gpu
    from ailab.resources import driver

    seen = driver.look()
    checks = [_driver_check(seen, stack)]
    found = gpu.look(generation, stack)
    if cuda.is_among(stack, set(generation.packages)):
        cuda.link_driver(gpu.folder_of(generation), found["driver_library"])
    checks.append(gpu.library_check(generation, stack, found))
    if seen.gpus:
        capabilities = {one.name: one.compute_capability for one in seen.gpus}
        checks.append(gpu.capability_check(capabilities, found["built_for"], found["cache"]))
    else:
        checks.append(gpu.skipped("capability"))
    if operate and not any(check.state == gpu.State.failed for check in checks):
        checks.append(gpu.operation_check(generation))
    else:
        checks.append(gpu.skipped("operation"))
    return checks, seen


def ensure_gpu(lab: Lab, generation: Generation, stack: Stack, tell: Tell, *, new: bool) -> Generation:
    """See to it that a generation with CUDA computes on the GPU; returns it.

    One that is `new` runs a real operation, which also fills the cache of compiled kernels before a person waits for
    it. Raises `GpuNotWorking` where a GPU is required; else what is wrong is told.
    """
    from ailab.environments import cuda, gpu

    required = lab.settings.environment.gpu == "required"
    if not required and not (new and cuda.is_among(stack, set(generation.packages))):
        return generation
    checks, _seen = examine(generation, stack, operate=new)
    if required:
        gpu.refuse_if_failed(checks)
    for check in checks:
        if check.state in (gpu.State.failed, gpu.State.warning):
            tell(f"{check.message} {check.remedy}".strip())
    return generation


def refuse_silent_cpu(lab: Lab, gpus: list[str]) -> None:
    """After the proof in the lab's kernel, which saw `gpus`: a required GPU must be among them."""
    from ailab.environments import gpu

    if lab.settings.environment.gpu == "required" and not gpus:
        raise gpu.GpuNotWorking(
            _('[environment] gpu is "required", and the lab\'s kernel sees no GPU.'),
            remedy=_("See which link of the chain is broken: ailab env gpu"),
        )


def to_json(setting: str, generation: Generation, checks: list[Check], seen: Driver) -> dict[str, Any]:
    """The document of `env gpu --json`."""
    from ailab.environments import gpu

    return {
        "ok": not any(check.state in (gpu.State.failed, gpu.State.skipped) for check in checks),
        "setting": setting,
        "environment": generation.id,
        "checks": [check.to_json() for check in checks],
        "driver": seen.to_json(),
    }
