"""What tests share: labs of their own, in places that any account can reach, taken down at the end."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parent.parent
UP_SECONDS = 600


@dataclass(frozen=True)
class CommandLine:
    """`./ailab` as a person types it, on a lab of the test's own."""

    lab: Path
    home: Path
    environment: dict[str, str]

    def run(self, *words: str, timeout: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv = [str(CHECKOUT / "ailab"), "--lab", str(self.lab), *words]
        done = subprocess.run(
            argv,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd="/",
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def json(self, *words: str, timeout: float = 120) -> Any:
        return json.loads(self.run(*words, "--json", timeout=timeout).stdout)

    def up(self) -> Any:
        return self.json("up", timeout=UP_SECONDS)

    @property
    def state(self) -> Path:
        return self.lab / ".ailab"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def machine_home() -> Path:
    """One AILAB_HOME for all tests of a run (and the next): environments are built once."""
    home = Path(os.environ.get("AILAB_CHECK_HOME") or tempfile.gettempdir()) / "ailab"
    if os.geteuid() == 0:
        # Below a home of mode 0700 the lab's account could not reach it.
        home = Path("/var/tmp/ailab-check")
    home.mkdir(parents=True, exist_ok=True)
    return home


def make_command_line(machine_home: Path, folder: Path) -> CommandLine:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.endswith(("_CERT_FILE", "_CERT_DIR", "_CERTS", "_proxy"))
    }
    environment = kept | {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "AILAB_LANG": "en", "LANG": "C.UTF-8"}
    return CommandLine(folder / "lab", machine_home, environment | {"AILAB_HOME": str(machine_home)})


@pytest.fixture(scope="session")
def science(machine_home: Path) -> Iterator[CommandLine]:
    """A lab with the light stack, up; what `up` said lies beside it as up.json."""
    folder = Path(tempfile.mkdtemp(prefix="ailab-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    line = make_command_line(machine_home, folder)
    line.run("init", str(line.lab), "--stack", "science", "--port", str(free_port()), timeout=UP_SECONDS)
    try:
        (folder / "up.json").write_text(json.dumps(line.up()))
        yield line
    finally:
        line.run("down", check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def first_up(science: CommandLine) -> Any:
    """What the first `up --json` of the science lab said."""
    return json.loads((science.lab.parent / "up.json").read_text())
