"""How much the GPUs of this machine have to do, by NVIDIA's driver."""

from __future__ import annotations

from dataclasses import dataclass

from ailab.resources.detect import has_nvidia_driver


@dataclass(frozen=True)
class GpuLoad:
    """A GPU by its number; `percent` of the last moments (a sixth of a second to a second, by NVML's documentation of
    nvmlUtilization_t) in which it has computed; memory in bytes."""

    id: str
    percent: int
    memory_bytes: int


def gpu_loads() -> tuple[GpuLoad, ...]:
    """Of each GPU; none where there is no driver, or one that does not answer. A GPU that does not tell (one that is
    divided by MIG) has nothing to do."""
    if not has_nvidia_driver():
        return ()
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(_load(index) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _load(index: int) -> GpuLoad:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    used = int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    try:
        return GpuLoad(str(index), int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu), used)
    except pynvml.NVMLError_NotSupported:
        return GpuLoad(str(index), 0, used)
