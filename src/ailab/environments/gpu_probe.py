"""Run by a generation's own Python (3.8 or newer, no ailab in it): what it finds of CUDA, as one line of JSON.

`gpu_probe.py libraries NAME...` opens libraries as TensorFlow's loader does, and needs neither a GPU nor TensorFlow's
import; `gpu_probe.py operation` runs real operations on the first GPU.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any


def framework() -> Path | None:
    """The folder of TensorFlow, which is not imported for it; None where there is none."""
    found = importlib.util.find_spec("tensorflow")
    return Path(found.origin).parent if found is not None and found.origin else None


def as_found(name: str, home: Path | None) -> str:
    """What the dynamic linker takes for a library that TensorFlow opens by name: a file of LD_LIBRARY_PATH, then of the
    RUNPATH of libtensorflow_framework.so, which is its own folder, then of the system's folders (ld.so(8))."""
    folders = [Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    folders += [home] if home is not None else []
    return next((str(folder / name) for folder in folders if (folder / name).exists()), name)


def opened(name: str, home: Path | None) -> str:
    """Empty when the library opens, else the linker's words."""
    try:
        ctypes.CDLL(as_found(name, home))
    except OSError as error:
        return str(error)
    return ""


def loaded_from(name: str) -> str:
    """The path of a loaded library by the name that was asked for, "libcuda.so.1", which lasts, rather than that of the
    file of one version that it links to. Empty when it is not loaded."""
    stem = name.split(".so")[0] + ".so"
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = Path(line.split(maxsplit=5)[-1])
        if path.name.startswith(stem):
            beside = path.with_name(name)
            return str(beside if beside.exists() else path)
    return ""


def built_for(home: Path | None) -> list[str]:
    """The compute capabilities that TensorFlow was built for, from the module that its build writes."""
    if home is None:
        return []
    info = runpy.run_path(str(home / "python/platform/build_info.py"))["build_info"]
    return list(info.get("cuda_compute_capabilities", []))


def libraries(names: list[str]) -> dict[str, Any]:
    home = framework()
    return {
        "libraries": {name: opened(name, home) for name in names},
        "driver_library": "" if opened("libcuda.so.1", home) else loaded_from("libcuda.so.1"),
        "built_for": built_for(home),
        "cache": os.environ.get("CUDA_CACHE_PATH", ""),
    }


def operation() -> dict[str, Any]:
    import tensorflow as tf  # seconds

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return {"gpus": [], "seconds": 0.0, "right": False}
    tf.config.set_soft_device_placement(False)
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    started = time.monotonic()
    with tf.device("/GPU:0"):
        product = tf.matmul(tf.constant([[1.0, 2.0], [3.0, 4.0]]), tf.constant([[1.0, 1.0], [0.0, 1.0]]))
        # A convolution is cuDNN's work: the sum of nine ones.
        image, kernel = tf.ones((1, 3, 3, 1)), tf.ones((3, 3, 1, 1))
        right = product.numpy().tolist() == [[1.0, 3.0], [3.0, 7.0]]
        right = right and float(tf.nn.conv2d(image, kernel, 1, "VALID").numpy().item()) == 9.0
    return {"gpus": [gpu.name for gpu in gpus], "seconds": time.monotonic() - started, "right": right}


if __name__ == "__main__":
    print(json.dumps(libraries(sys.argv[2:]) if sys.argv[1] == "libraries" else operation()))
