"""Root hands a lab over while its account swaps a folder of it for a link: is a file outside of the lab ever touched?

    sudo PYTHONPATH=src python bench/hand_over_race.py [RUNS]

Prints the runs, the seconds, and the swaps that the account made meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from ailab.cli import account

_NOBODY = pwd.getpwnam("nobody")
_FOLDERS = 20


def race(place: Path, runs: int) -> int:
    """Make a lab below `place`, a folder that all may pass through, and hand it over `runs` times while its account
    swaps. Returns how often the account has swapped; raises AssertionError at the first touch."""
    lab, outside = place / "race", place / "not-the-lab"
    # A folder's own name is looked at early in the walk of those before it.
    names = [f"notebooks/{number}" for number in range(_FOLDERS)]
    for path in (lab, lab / ".ailab", lab / "notebooks", *(lab / name for name in names)):
        path.mkdir()
        os.chown(path, _NOBODY.pw_uid, _NOBODY.pw_gid)
    outside.mkdir()
    for number in range(_FOLDERS):
        (outside / str(number)).write_text("root's")
    os.environ["AILAB_HOME"] = str(place / "race-machine")
    counted, told = os.pipe()
    attacker = os.fork()
    if attacker == 0:
        _swap(lab / names[-1], outside, told)
    try:
        for number in range(runs):
            account.prepare(lab)
            touched = [path for path in (outside, *outside.iterdir()) if path.stat().st_uid != 0]
            assert not touched, f"run {number}: {touched}"
    finally:
        os.kill(attacker, signal.SIGKILL)
        os.waitpid(attacker, 0)
        os.close(told)
    return len(os.read(counted, 1 << 20))


def _swap(folder: Path, outside: Path, told: int) -> None:
    """As nobody, for ever: the folder, then a link, then the folder."""
    os.setgroups([])
    os.setgid(_NOBODY.pw_gid)
    os.setuid(_NOBODY.pw_uid)
    os.set_blocking(told, False)
    link, kept = folder.with_name("link"), folder.with_name("kept")
    link.symlink_to(outside)
    while True:
        folder.rename(kept)
        link.rename(folder)
        folder.rename(link)
        kept.rename(folder)
        with contextlib.suppress(BlockingIOError):
            os.write(told, b".")


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    place = Path(tempfile.mkdtemp(prefix="ailab-race-", dir="/var/tmp"))
    place.chmod(0o755)
    began = time.monotonic()
    try:
        swaps = race(place, runs)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print(f"{runs} runs, {time.monotonic() - began:.1f} s, at least {swaps} swaps: nothing outside was touched")


if __name__ == "__main__":
    main()
