"""Which of the caller's variables the lab's own processes get: the one allow-list. All others stay with the caller,
secrets and what steers Python among them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ailab import downloads

# Where this ailab is and how it talks. Not AILAB_*: that has the password of a registry.
_AILAB = ("AILAB_HOME", "AILAB_UV", "AILAB_LANG")
# The account, and where its programs and files are. git reads its settings in XDG_CONFIG_HOME.
_ACCOUNT = ("HOME", "USER", "LOGNAME", "PATH", "TMPDIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME")
# The container engine, and the file in which the docker library looks for headers and proxies.
_ENGINE = ("DOCKER_HOST", "DOCKER_CONFIG")
# What tasks without a container get of this machine's GPUs and libraries.
_DEVICES = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
_NAMES = frozenset((*_AILAB, *_ACCOUNT, *_ENGINE, *_DEVICES, "UV_INDEX"))
_LOCALE = re.compile(r"LANG|LANGUAGE|LC_\w+|TZ")


def passed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of `environ` that the daemon, and what it starts, may read."""
    return {
        name: value
        for name, value in environ.items()
        if name in _NAMES or _LOCALE.fullmatch(name) or downloads.reads(name)
    }
