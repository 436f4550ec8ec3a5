"""What is in this machine, as far as this account can see it."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as the driver reports it; memory in bytes."""

    index: int
    name: str
    memory_bytes: int
    driver: str
    compute_capability: str


@dataclass(frozen=True)
class Machine:
    """CPUs whose time this process may use, memory in bytes that it may have, GPUs."""

    cpus: int
    memory_bytes: int
    gpus: tuple[Gpu, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def detect_machine(cpus: float = 0.0, memory_bytes: int = 0) -> Machine:
    """`cpus` and `memory_bytes` are limits that control groups set, as a container's does; 0: none. Part of a CPU
    counts as one."""
    seen = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(min(seen, math.ceil(cpus) or seen), min(memory, memory_bytes or memory), detect_gpus())


def has_nvidia_driver() -> bool:
    """Whether the kernel's side of NVIDIA's driver is there; a container may have only its devices, WSL its own."""
    return any(Path(name).exists() for name in ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg"))


def detect_gpus() -> tuple[Gpu, ...]:
    """The GPUs that NVML lists; none where there is no driver, or one that does not answer."""
    return ask_nvml()[0]


def ask_nvml() -> tuple[tuple[Gpu, ...], str]:
    """The GPUs that NVML lists, and its own words where it fails (both empty where there is no driver)."""
    if not has_nvidia_driver():
        return (), ""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return (), str(error)
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        return tuple(_gpu(pynvml, index, driver) for index in range(pynvml.nvmlDeviceGetCount())), ""
    except pynvml.NVMLError as error:
        return (), str(error)
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml: Any, index: int, driver: str) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    name = _text(nvml.nvmlDeviceGetName(handle))
    return Gpu(index, name, nvml.nvmlDeviceGetMemoryInfo(handle).total, driver, f"{major}.{minor}")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
