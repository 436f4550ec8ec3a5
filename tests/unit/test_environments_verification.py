"""What has changed in a generation is named: really built ones, really damaged."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from test_environments_build import build_light, light_lock

from ailab.cli.env_check import findings
from ailab.environments import generations as generations_module
from ailab.environments import installed
from ailab.environments.generations import Generation, Generations
from ailab.environments.interpreters import find
from ailab.environments.lock import Lock
from ailab.environments.lock_file import Package
from ailab.environments.uv import Uv
from ailab.environments.verification import PackageProblem, locked_packages, verify
from ailab.paths import LabPaths, MachinePaths
from ailab.settings import MirrorsSection
from ailab.stacks import load_stack

STACK = load_stack("science")


@pytest.fixture
def machine(tmp_path: Path) -> MachinePaths:
    """Each test its own cache: what a test does to a file in place, it does to the cache's."""
    return MachinePaths(tmp_path / "machine")


@pytest.fixture
def lab(tmp_path: Path) -> LabPaths:
    return LabPaths(tmp_path / "lab")


@pytest.fixture
def one(machine: MachinePaths, lab: LabPaths) -> Generation:
    """A generation with cycler, as it was built."""
    return build_light(machine, lab, "cycler")


def site(generation: Generation) -> Path:
    return installed.site_packages(generation.folder)


def module(generation: Generation) -> Path:
    return site(generation) / "cycler" / "__init__.py"


def relative(generation: Generation, path: Path) -> str:
    return str(path.relative_to(generation.folder))


def overwrite(path: Path) -> None:
    """Change one byte in place: neither size nor inode tell of it."""
    stamp = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    os.utime(path, ns=(stamp, stamp))


def uv_pip(generation: Generation, machine: MachinePaths, *words: str) -> None:
    action, *rest = words
    Uv(machine, MirrorsSection()).run("pip", action, "--python", generation.program, *rest)


def test_what_was_built_is_what_its_lock_says(one: Generation) -> None:
    found = verify(one)
    assert found.ok, found
    assert found.files == len([path for path in site(one).rglob("*") if path.is_file() and path.suffix != ".pyc"])
    assert found.environment == one.id and found.lock == one.lock


def test_a_changed_byte_is_found(one: Generation) -> None:
    overwrite(module(one))
    found = verify(one)
    assert found.changed == (relative(one, module(one)),) and found.damaged == ("cycler",)
    assert not found.ok and not (found.missing or found.extra or found.packages)


def test_missing_and_extra_files_are_named_and_bytecode_is_passed_over(one: Generation) -> None:
    module(one).unlink()
    hook = site(one) / "surprise.pth"
    hook.write_text("import os\n")
    cached = site(one) / "cycler" / "__pycache__" / "anything.cpython-311.pyc"
    cached.parent.mkdir(exist_ok=True)
    cached.write_bytes(b"")
    sourceless = site(one) / "hidden.pyc"
    sourceless.write_bytes(b"")
    found = verify(one)
    assert found.missing == (relative(one, module(one)),)
    assert found.extra == tuple(sorted([relative(one, hook), relative(one, sourceless)]))


def test_a_lost_record_is_missing_and_its_files_are_nobodys(one: Generation) -> None:
    (info,) = site(one).glob("cycler-*.dist-info")
    (info / "RECORD").unlink()
    found = verify(one)
    assert found.missing == (relative(one, info / "RECORD"),)
    assert relative(one, module(one)) in found.extra


def test_our_own_files_and_the_program_are_looked_at(one: Generation) -> None:
    Path(one.folder, "pip.conf").write_text("[install]\n")
    Path(one.folder, "constraints.txt").unlink()
    one.program.unlink()
    found = verify(one)
    assert found.changed == ("pip.conf",) and found.missing == ("bin/python", "constraints.txt")


def test_a_link_to_a_verified_file_is_no_surprise_and_one_that_leads_out_is(one: Generation) -> None:
    (site(one) / "again.py").symlink_to("cycler/__init__.py")
    out = site(one) / "out.py"
    out.symlink_to("/etc/hostname")
    assert verify(one).extra == (relative(one, out),)


def test_what_ailab_added_is_known_and_missed_when_it_goes(one: Generation) -> None:
    added = site(one) / "cuda.pth"
    added.write_text("")
    driver = site(one) / "libcuda.so"
    driver.symlink_to("/nonexistent/libcuda.so.1")
    Path(one.folder, "added.txt").write_text("".join(f"{relative(one, path)}\n" for path in (added, driver)))
    assert verify(one).ok
    added.unlink()
    assert verify(one).missing == (relative(one, added),)


def test_packages_by_hand_are_named(machine: MachinePaths, one: Generation) -> None:
    uv_pip(one, machine, "install", "cycler==0.11.0", "six==1.17.0")
    wanted = light_lock("cycler").packages[0].version
    assert verify(one).packages == (
        PackageProblem("cycler", "version", wanted, "0.11.0"),
        PackageProblem("six", "extra", None, "1.17.0"),
    )
    uv_pip(one, machine, "uninstall", "cycler", "six")
    found = verify(one)
    assert found.packages == (PackageProblem("cycler", "missing", wanted, None),) and not found.missing


def test_the_same_version_from_elsewhere_is_another_build(one: Generation) -> None:
    """A changed module whose RECORD agrees with it, as after a build from source by hand."""
    (record,) = site(one).glob("cycler-*.dist-info/RECORD")
    overwrite(module(one))
    digest = base64.urlsafe_b64encode(hashlib.sha256(module(one).read_bytes()).digest()).rstrip(b"=").decode()
    lines = record.read_text().splitlines()
    number = next(index for index, line in enumerate(lines) if line.startswith("cycler/__init__.py,"))
    lines[number] = f"cycler/__init__.py,sha256={digest},{module(one).stat().st_size}"
    record.write_text("\n".join(lines) + "\n")
    version = one.packages["cycler"]
    found = verify(one)
    assert found.packages == (PackageProblem("cycler", "build", version, version),) and not found.changed


def test_the_same_wheel_by_pip_is_the_same_build(machine: MachinePaths, lab: LabPaths) -> None:
    made = build_light(machine, lab, "cycler", "pip")
    words = ["-m", "pip", "install", "--quiet", "--no-compile", "--force-reinstall", "--no-deps"]
    version = made.packages["cycler"]
    subprocess.run([made.program, *words, f"cycler=={version}"], check=True, env={**os.environ, "PIP_CONFIG_FILE": ""})
    (info,) = site(made).glob("cycler-*.dist-info")
    assert (info / "INSTALLER").read_text().strip() == "pip"
    assert verify(made).ok


def test_what_a_marker_leaves_out_is_not_missed(machine: MachinePaths, lab: LabPaths) -> None:
    light = light_lock("cycler").packages[0]
    elsewhere = Package("six", "1.17.0", "python_version == '2.7'", light.hashes)
    wanted = Lock("science", "test", (), (light, elsewhere))
    uv = Uv(machine, MirrorsSection())
    made, _new = Generations(machine, lab).build(STACK, wanted, find(STACK, "", uv), uv, lambda _text: None)
    assert locked_packages(made) == {"cycler": light.version} and verify(made).ok


def test_building_again_mends_a_file_that_the_cache_shares(machine: MachinePaths, lab: LabPaths) -> None:
    """What was written to in place is the same file in uv's cache; a build from there alone would bring it back."""
    made = build_light(machine, lab, "cycler")
    assert module(made).stat().st_nlink > 1
    overwrite(module(made))
    broken = verify(build_light(machine, lab, "cycler", "packaging"))
    assert broken.changed, "another generation has the same file"
    assert verify(build_light(machine, lab, "cycler", again=True)).ok
    assert verify(build_light(machine, lab, "cycler", "packaging", again=True)).ok


def test_a_generation_without_a_seal_can_be_verified(one: Generation) -> None:
    Path(one.folder, "seal.json").unlink()
    assert verify(one).ok


def test_everything_gone_is_everything_missing(one: Generation) -> None:
    generations_module.shutil.rmtree(site(one))
    found = verify(one)
    assert [problem.problem for problem in found.packages] == ["missing"] and not found.ok


def test_a_person_reads_the_first_few_of_each_kind(one: Generation) -> None:
    for number in range(15):
        (site(one) / f"extra{number:02}.py").touch()
    lines = findings(verify(one))
    assert len(lines) == 11 and lines[0].endswith("site-packages/extra00.py") and "5" in lines[-1]
