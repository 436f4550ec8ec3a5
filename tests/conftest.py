"""What tests share: labs of their own, in places that any account can reach, taken down at the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ailab.paths import LabPaths

CHECKOUT = Path(__file__).parent.parent
UP_SECONDS = 900
_PASSED_ON = ("_CERT_FILE", "_CERT_DIR", "_CERTS", "_proxy", "DOCKER_HOST", "AILAB_ACCOUNT", "AILAB_DEFAULT_LAB")
pytest_plugins = ["groups", "isolation", "slowest", "runtime_fixtures"]


@dataclass(frozen=True)
class CommandLine:
    """`./ailab` as a person types it, on a lab of the test's own. `become` are words before it: another account."""

    lab: Path
    environment: dict[str, str]
    program: Path = CHECKOUT / "ailab"
    become: tuple[str, ...] = ()

    def run(self, *words: str, timeout: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.bare("--lab", str(self.lab), *words, timeout=timeout, check=check)

    def bare(
        self, *words: str, timeout: float = 120, check: bool = True, cwd: Path | str = "/"
    ) -> subprocess.CompletedProcess[str]:
        """A call that names no lab: it is found from `cwd`."""
        done = subprocess.run(
            [*self.become, str(self.program), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def json(self, *words: str, timeout: float = 120) -> Any:
        return json.loads(self.run(*words, "--json", timeout=timeout).stdout)

    def up(self) -> Any:
        return self.json("up", timeout=UP_SECONDS)

    @property
    def paths(self) -> LabPaths:
        return LabPaths(self.lab)

    @property
    def web(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.json("status")["url"].rstrip("/").rpartition(":")[2])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def plain_environment(home: Path | str, **more: str) -> dict[str, str]:
    """What a person's shell would have, and how this machine reaches the network; nothing of the test's own."""
    kept = {name: value for name, value in os.environ.items() if name.endswith(_PASSED_ON)}
    return kept | {"PATH": os.environ["PATH"], "HOME": str(home), "AILAB_LANG": "en", "LANG": "C.UTF-8"} | more


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """A temporary folder that every account can pass through."""
    folder = Path(tempfile.mkdtemp(prefix="ailab-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def made_lab(machine_home: Path, stack: str, words: Sequence[str] = ()) -> Iterator[CommandLine]:
    """A lab that `init` has made; it is taken down at the end."""
    with reachable_folder() as folder:
        environment = plain_environment(os.environ["HOME"], AILAB_HOME=str(machine_home))
        line = CommandLine(folder / "lab", environment)
        line.run("init", str(line.lab), "--stack", stack, "--port", str(free_port()), *words, timeout=UP_SECONDS)
        try:
            yield line
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                line.run("down", check=False)


@pytest.fixture(scope="session")
def science_up(machine_home: Path) -> Iterator[tuple[CommandLine, Any]]:
    with made_lab(machine_home, "science") as line:
        yield line, line.up()


@pytest.fixture(scope="session")
def science(science_up: tuple[CommandLine, Any]) -> CommandLine:
    """A lab with the light stack, up; tests share it and leave it up."""
    return science_up[0]


@pytest.fixture(scope="session")
def first_up(science_up: tuple[CommandLine, Any]) -> Any:
    """What the first `up --json` of the science lab said."""
    return science_up[1]


@pytest.fixture
def another(machine_home: Path) -> Iterator[CommandLine]:
    """A lab with the light stack for one test alone, not yet up."""
    with made_lab(machine_home, "science") as line:
        yield line


@pytest.fixture(scope="session")
def tensorflow_up(machine_home: Path) -> Iterator[tuple[CommandLine, Any]]:
    with made_lab(machine_home, "tensorflow-2.9") as line:
        yield line, line.up()


@pytest.fixture(scope="session")
def tensorflow(tensorflow_up: tuple[CommandLine, Any]) -> CommandLine:
    """A lab with TensorFlow 2.9; tests share it and bring it up where they need it so."""
    return tensorflow_up[0]
