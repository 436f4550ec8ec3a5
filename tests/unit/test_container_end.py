"""How a container's attempt ended, from what the engine says of it."""

from __future__ import annotations

import json
from pathlib import Path

from ailab.runtimes import container_end


def test_a_short_task_does_not_end_before_it_starts(tmp_path: Path) -> None:
    """Docker 20.10.24: StartedAt is noted when containerd has answered, FinishedAt is the moment of the exit itself."""
    started = "2026-12-01T14:16:48.633+00:00"
    (tmp_path / "child.json").write_text(json.dumps({"started_at": started}))
    state = {"Status": "exited", "ExitCode": 3, "OOMKilled": False, "FinishedAt": "2026-12-01T14:16:48.632512345Z"}
    end = container_end.of(tmp_path, {"attempt": 1}, {"State": state}, None)
    assert (end.exit_status, end.started_at, end.ended_at) == (3, started, started)
