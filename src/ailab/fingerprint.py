"""What a daemon was started from, so that `up` can tell an old one from a current one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ailab import __version__
from ailab.lab import Lab


def build_of(lab: Lab) -> str:
    """What a daemon was started from: this ailab and these settings. Another value means: start it anew."""
    stamp = Path(__file__).stat().st_mtime_ns
    text = json.dumps([__version__, str(Path(__file__)), stamp, lab.settings.model_dump()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
