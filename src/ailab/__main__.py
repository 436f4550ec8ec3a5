"""`python -m ailab`, and the `ailab` command that pip, pipx and uv install: always isolated from the caller's Python
variables (PYTHONPATH and the like), which may name packages that break this one."""

import os
import sys


def isolated_main() -> None:
    """The installed command's entry. Starts itself again as `python -I`, where that is not how it was started."""
    if not sys.flags.isolated and os.path.isfile(sys.argv[0]):  # noqa: PTH113  before any import that may break
        os.execv(sys.executable, [sys.executable, "-I", *sys.argv])  # noqa: S606  this very program
    run()


def run() -> None:
    from ailab.cli.main import main

    main()


if __name__ == "__main__":
    run()
