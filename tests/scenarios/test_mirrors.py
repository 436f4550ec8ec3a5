"""One lab.lock on two machines: the second one reaches nothing but a mirror on loopback, and computes as the first."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import CommandLine, made_lab, plain_environment
from loopback import package_server

from ailab.settings_file import set_value

pytestmark = pytest.mark.lab
SECONDS = 300
NEEDED_BYTES = 4 * 10**9
# Nobody listens there: who goes past the mirror gets nowhere.
CAGE = {name: "http://127.0.0.1:9" for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")}
CAGE |= {name.lower(): address for name, address in CAGE.items()} | {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}


@dataclass(frozen=True)
class Made:
    """A lab's lock, and what it became on the first machine: a fingerprint's document, and a generation's folder."""

    packages: list[str]
    lock: str
    fingerprint: str
    folder: Path


@pytest.fixture(scope="module")
def first(machine_home: Path) -> Iterator[tuple[Made, Made]]:
    """The first machine: the stack as it is, and with a package more, built from the default index."""
    with made_lab(machine_home, "science") as line:
        made = []
        for packages in ([], ["humanize"]):
            ask_for(line, packages)
            line.run("env", "lock", timeout=SECONDS)
            folder = Path(line.json("env", "build", timeout=SECONDS)["folder"])
            text = line.run("env", "fingerprint", "--json").stdout
            made.append(Made(packages, line.paths.lock.read_text(), text, folder))
        yield made[0], made[1]


@pytest.fixture(scope="module")
def mirror(first: tuple[Made, Made], machine_home: Path) -> Iterator[tuple[str, Path]]:
    """A package index on loopback with what the first machine has installed, by the lock's hashes; and its folder."""
    kept, (_plain, more) = machine_home / "mirrored", first
    words = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", kept]
    words += ["--require-hashes", "--requirement", more.folder / "requirements.txt"]
    environment = plain_environment(os.environ["HOME"], PIP_CONFIG_FILE=os.devnull)
    subprocess.run([more.folder / "bin/python", *words], env=environment, check=True, timeout=SECONDS)
    files = machine_home / "mirror"
    shutil.rmtree(files, ignore_errors=True)
    shutil.copytree(kept, files, copy_function=os.link)
    with package_server(files) as address:
        yield address, files
    shutil.rmtree(files)


@pytest.fixture(scope="module")
def second(machine_home: Path, first: tuple[Made, Made]) -> Iterator[CommandLine]:
    """A machine with nothing on it but ailab itself, in a cage, and a lab."""
    with second_home(machine_home) as home, made_lab(home, "science") as line:
        yield CommandLine(line.lab, line.environment | CAGE)


@contextmanager
def second_home(machine_home: Path) -> Iterator[Path]:
    """An AILAB_HOME of its own; in memory where that has room, for it is filled and emptied once more in every run."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > NEEDED_BYTES
    home = Path(tempfile.mkdtemp(prefix="ailab-second-", dir=memory if roomy else machine_home))
    home.chmod(0o755)
    (home / "control").symlink_to(machine_home / "control")
    try:
        yield home
    finally:
        shutil.rmtree(home)


def ask_for(line: CommandLine, packages: list[str], mirror: str = "") -> None:
    """Write lab.toml, as its owner would."""
    owner = line.paths.settings.stat()
    set_value(line.paths.settings, "environment", "packages", packages)
    set_value(line.paths.settings, "mirrors", "pypi", mirror)
    os.chown(line.paths.settings, owner.st_uid, owner.st_gid)


def bring(line: CommandLine, made: Made, mirror: str) -> None:
    """Another machine's lab.lock, with a lab.toml that asks for the same."""
    ask_for(line, made.packages, mirror)
    line.paths.lock.write_text(made.lock)
    line.paths.lock.chmod(0o644)


def same(line: CommandLine, made: Made) -> bool:
    """Whether `env compare` finds no difference to the first machine's environment."""
    file = line.lab / "first.json"
    file.write_text(made.fingerprint)
    file.chmod(0o644)
    done = line.run("env", "compare", str(file), check=False)
    assert (done.returncode, done.stdout) == (0, "same\n") or "HERE" in done.stdout, done.stderr
    return done.returncode == 0


def test_the_cage_holds(second: CommandLine, first: tuple[Made, Made]) -> None:
    bring(second, first[0], "")
    refused = second.run("env", "build", "--json", check=False, timeout=SECONDS)
    assert refused.returncode == 1 and "cannot be reached" in refused.stdout


def test_a_lock_builds_the_same_from_a_mirror(
    second: CommandLine, first: tuple[Made, Made], mirror: tuple[str, Path]
) -> None:
    plain, more = first
    bring(second, plain, mirror[0])
    second.run("env", "build", timeout=SECONDS)
    assert same(second, plain) and not same(second, more)
    assert second.json("env", "verify")["ok"] is True
    second.paths.lock.unlink()
    assert second.json("env", "lock")["written"] is True
    assert second.paths.lock.read_text() == plain.lock


def test_a_changed_wheel_is_refused_and_the_environment_in_use_stays(
    second: CommandLine, first: tuple[Made, Made], mirror: tuple[str, Path]
) -> None:
    plain, more = first
    address, files = mirror
    before = second.json("env", "fingerprint")
    (wheel,) = files.glob("humanize-*.whl")
    data = wheel.read_bytes()
    wheel.unlink()
    # A ZIP's comment: the wheel can be installed as before, and is not the one that was locked.
    wheel.write_bytes(data[:-2] + b"\x07\x00changed")
    bring(second, more, address)
    refused = second.run("env", "build", check=False, timeout=SECONDS)
    assert refused.returncode == 1 and refused.stderr.count("humanize") and address in refused.stderr
    assert "not the one in the lock" in refused.stderr and "[mirrors] pypi" in refused.stderr
    assert second.json("env", "fingerprint") == before and second.json("env", "verify")["ok"] is True
    assert len(second.json("env", "list")) == 1, "nothing half-built is left"

    wheel.write_bytes(data)
    second.run("env", "build", timeout=SECONDS)
    assert same(second, more) and not same(second, plain)
