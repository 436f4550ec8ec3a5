"""For maintainers: resolve a shipped stack against today's registry and write its tested lock anew.

`python -m ailab.environments.shipping STACK...`; what moved is printed. Build and prove it before it is committed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ailab.environments.interpreters import find
from ailab.environments.lock import moved, read_lock, resolve
from ailab.environments.uv import Uv
from ailab.paths import MachinePaths
from ailab.settings import MirrorsSection
from ailab.stacks import load_stack


def ship(name: str, uv: Uv) -> list[str]:
    """Write the lock of the stack `name`, and return what moved."""
    stack = load_stack(name)
    before = read_lock(stack.shipped_lock)
    after = resolve(stack, [], [], uv, find(stack, "", uv).program)
    Path(stack.shipped_lock).write_text(after.text(), encoding="utf-8")
    return moved(before, after) if before is not None else []


if __name__ == "__main__":
    the_uv = Uv(MachinePaths.from_environment(os.environ), MirrorsSection.model_validate({}))
    for stack_name in sys.argv[1:]:
        for line in ship(stack_name, the_uv):
            print(f"{stack_name}: {line}")
