"""Runs at the start of each Python of an environment with CUDA libraries: tells XLA and the driver where things are.

`cuda.install` copies it into the environment's site-packages with a .pth file that calls `prepare`; it therefore runs
on Python 3.8, imports next to nothing, and never raises.
"""

import os

_DATA_DIR = "--xla_gpu_cuda_data_dir="
# The most that the driver accepts: 4 GiB (CUDA C++ Programming Guide, CUDA environment variables).
_CACHE_BYTES = 2**32


def prepare(cache: str) -> None:
    """Set, where the person has not: XLA_FLAGS for libdevice, PATH for ptxas, and the folder and size of the cache of
    kernels compiled on this machine. `cache` is left out when this account may not write there."""
    nvcc = __file__.rpartition("/")[0] + "/nvidia/cuda_nvcc"
    flags = os.environ.get("XLA_FLAGS", "")
    # XLA_FLAGS may also be the name of a file with flags; then it is the person's to complete.
    if _DATA_DIR not in flags and (not flags or flags.lstrip().startswith("-")):
        os.environ["XLA_FLAGS"] = (flags + " " + _DATA_DIR + nvcc).strip()
    programs = os.environ.get("PATH", os.defpath)
    if nvcc + "/bin" not in programs.split(os.pathsep):
        # First, so that the locked ptxas is the one that is used, whatever CUDA the system has.
        os.environ["PATH"] = nvcc + "/bin" + os.pathsep + programs
    if os.access(cache, os.W_OK):
        os.environ.setdefault("CUDA_CACHE_PATH", cache)
    os.environ.setdefault("CUDA_CACHE_MAXSIZE", str(_CACHE_BYTES))
