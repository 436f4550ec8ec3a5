"""A lab's daemon as though the machine had GPUs: `python daemon_with_gpus.py COUNT --lab DIR`. What computes on them is
not there; who is given which, what sees which and who is told what is as on a machine that has them. A minute without
work passes in five seconds, one of notice in eight."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from ailab.daemon import idle_gpus, main, status
from ailab.resources.detect import Gpu

IDLE_FASTER, NOTICE_FASTER = 60 / 5, 60 / 8


def with_gpus(count: int) -> None:
    real = status.detect_machine

    def detect(*limits: Any) -> Any:
        return replace(real(*limits), gpus=tuple(Gpu(index, "Made up", 2**34, "0", "0.0") for index in range(count)))

    status.detect_machine = detect  # type: ignore[assignment]


def in_seconds() -> None:
    look, decide = idle_gpus.Idleness.seconds, idle_gpus.moves
    idle_gpus.LOOK_SECONDS = 1.0
    idle_gpus.Idleness.seconds = lambda *words: look(*words) * IDLE_FASTER  # type: ignore[method-assign]

    def faster(*words: Any, notice_seconds: float, **more: Any) -> Any:
        return decide(*words, notice_seconds=notice_seconds / NOTICE_FASTER, **more)

    idle_gpus.moves = faster  # type: ignore[assignment]


if __name__ == "__main__":
    with_gpus(int(sys.argv.pop(1)))
    in_seconds()
    main.main()
