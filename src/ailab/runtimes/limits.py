"""What a limit of CPU time does not tell programs by itself: how many threads are of use."""

from __future__ import annotations

import math

# What programs ask for how many threads to start: OpenMP, OpenBLAS, MKL, numexpr, and TensorFlow's two pools. Without
# them each would start one for every CPU of the machine, and most would wait for the others' time.
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


def thread_variables(cpus: int) -> dict[str, str]:
    """The variables for a task that may use the time of `cpus` CPUs; none where it is not limited."""
    return dict.fromkeys(_THREADS, str(cpus)) if cpus else {}


def variables_under(quota: float, cpus: int) -> dict[str, str]:
    """The variables for a task that sees `cpus` CPUs and may, with all else in the container that it is in, use the
    time of `quota` (0: no limit): none where it sees no more of them than it may use."""
    usable = math.ceil(quota)
    return thread_variables(usable) if 0 < usable < cpus else {}
