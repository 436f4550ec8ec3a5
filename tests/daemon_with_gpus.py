"""A lab's daemon as though the machine had GPUs: `python daemon_with_gpus.py COUNT --lab DIR`. What computes on them is
not there; who is given which, what sees which and who is told what is as on a machine that has them."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from ailab.daemon import main, status
from ailab.resources.detect import Gpu


def with_gpus(count: int) -> None:
    real = status.detect_machine

    def detect(*limits: Any) -> Any:
        return replace(real(*limits), gpus=tuple(Gpu(index, "Made up", 2**34, "0", "0.0") for index in range(count)))

    status.detect_machine = detect  # type: ignore[assignment]


if __name__ == "__main__":
    with_gpus(int(sys.argv.pop(1)))
    main.main()
