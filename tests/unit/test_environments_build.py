"""Generations of the light stack, really built: once, whole or not at all, switched at once, proven by their kernel."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ailab import files
from ailab.environments import generations, interpreters, kernel, lock
from ailab.environments.bytecode import compile_bytecode
from ailab.environments.generations import Generation, Generations
from ailab.environments.halves import bytecode_lock, lock_of
from ailab.environments.lock import Lock
from ailab.environments.uv import Uv
from ailab.errors import AilabError, DiskFull, NotFound
from ailab.paths import LabPaths, MachinePaths, private_folder
from ailab.settings import MirrorsSection
from ailab.stacks import load_stack
from ailab.waiting import wait_for

STACK = load_stack("science")
HOLD = """
import sys
from pathlib import Path
from ailab.environments import generations
from ailab.paths import LabPaths, MachinePaths
sys.path.insert(0, {tests!r})
import test_environments_build as here
def hold(*words, **named):
    Path({flag!r}).touch()
    __import__("signal").pause()
generations._installed = hold
here.build_light(MachinePaths(Path({home!r})), LabPaths(Path({lab!r})), "cycler")
"""


def light_lock(*names: str) -> Lock:
    """A lock of a few small packages: building it is the same work, in a tenth of the time."""
    shipped = lock.read_lock(STACK.shipped_lock)
    assert shipped is not None
    return Lock("science", "test", names, tuple(one for one in shipped.packages if one.name in names))


def build_light(machine: MachinePaths, lab: LabPaths, *names: str, again: bool = False) -> Generation:
    uv = Uv(machine, MirrorsSection())
    python = interpreters.find(STACK, "", uv)
    return Generations(machine, lab).build(STACK, light_lock(*names), python, uv, lambda _text: None, again=again)[0]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> MachinePaths:
    return MachinePaths(tmp_path_factory.mktemp("machine"))


@pytest.fixture
def lab(tmp_path: Path) -> LabPaths:
    paths = LabPaths(tmp_path / "lab")
    for folder in paths.private_folders:
        private_folder(folder)
    return paths


@pytest.fixture(scope="module")
def science(machine: MachinePaths) -> Generation:
    """The whole light stack."""
    uv = Uv(machine, MirrorsSection())
    whole = lock.read_lock(STACK.shipped_lock)
    assert whole is not None
    python = interpreters.find(STACK, "", uv)
    return Generations(machine, LabPaths(machine.home)).build(STACK, whole, python, uv, lambda _text: None)[0]


def test_the_stack_is_proven_by_its_own_kernel(science: Generation, lab: LabPaths) -> None:
    document, text = kernel.verify(science, STACK, lab)
    assert document["ok"] and document["matmul"] == [[1.0, 3.0], [3.0, 7.0]]
    assert document["environment"] == science.id and document["python"] == science.python
    assert text.startswith(f"NumPy {science.packages['numpy']}")


def test_a_cell_that_fails_shows_its_traceback(science: Generation, lab: LabPaths) -> None:
    with pytest.raises(AilabError, match="proof failed") as caught:
        kernel.run_cell(science, lab, "print('so far'); 1 / 0")
    assert "so far" in caught.value.detail and "ZeroDivisionError" in caught.value.detail


def test_a_kernel_that_dies_is_noticed_at_once(science: Generation, lab: LabPaths) -> None:
    started = time.monotonic()
    with pytest.raises(AilabError, match="SIGKILL"):
        kernel.run_cell(science, lab, "import os; os.kill(os.getpid(), 9)")
    assert time.monotonic() - started < 20


def test_pip_by_hand_reads_the_bounds(science: Generation) -> None:
    words = [science.program, "-m", "pip", "config", "get", "install.constraint"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(said).is_relative_to(science.folder)
    assert Path(said).read_text().splitlines() == STACK.short_constraints


def test_built_once_and_then_found(machine: MachinePaths, lab: LabPaths) -> None:
    first = build_light(machine, lab, "cycler")
    stamp = Path(first.folder, "generation.json").stat().st_mtime_ns
    assert build_light(machine, lab, "cycler") == first
    assert Path(first.folder, "generation.json").stat().st_mtime_ns == stamp
    assert first.packages == {"cycler": light_lock("cycler").packages[0].version}


def test_two_builders_at_once_build_once(machine: MachinePaths, lab: LabPaths) -> None:
    with ThreadPoolExecutor(2) as pool:
        building = [pool.submit(build_light, machine, lab, "cycler", "packaging") for _builder in range(2)]
        one, two = (builder.result() for builder in building)
    assert one == two


def test_use_and_rollback_go_the_way_back(machine: MachinePaths, lab: LabPaths) -> None:
    kept = Generations(machine, lab)
    wishes = (["cycler"], ["packaging"], ["cycler", "packaging"])
    one, two, three = (build_light(machine, lab, *names) for names in wishes)
    assert kept.current() is None
    for chosen in (one, two, three):
        kept.use(chosen.id, who="me", why="test")
    assert kept.rollback(who="me") == two
    assert kept.rollback(who="me") == one
    with pytest.raises(NotFound):
        kept.rollback(who="me")
    assert kept.current() == one
    assert [entry["to"] for entry in kept.history()] == [one.id, two.id, three.id, two.id, one.id]


def test_a_choice_by_hand_stands_until_lab_toml_asks_for_something_else(machine: MachinePaths, lab: LabPaths) -> None:
    kept = Generations(machine, lab)
    one, two = build_light(machine, lab, "cycler"), build_light(machine, lab, "packaging")
    kept.use(one.id, who="me", why="lab.toml", wish="a")
    kept.use(two.id, who="me", why="lab.toml", wish="b")
    assert not kept.chosen_against("b")
    assert kept.rollback(who="me", wish="b") == one
    assert kept.chosen_against("b") and not kept.chosen_against("c")


def test_a_damaged_generation_is_built_again_in_its_place(machine: MachinePaths, lab: LabPaths) -> None:
    one = build_light(machine, lab, "cycler")
    module = next(Path(one.folder).rglob("cycler/__init__.py"))
    module.unlink()
    assert build_light(machine, lab, "cycler") == one and not module.exists(), "it looks complete"
    again = build_light(machine, lab, "cycler", again=True)
    assert again.id == one.id and module.exists()
    assert not list(machine.generations.glob(".old-*"))


def test_building_again_and_compiling_keep_out_of_each_other_s_way(machine: MachinePaths, lab: LabPaths) -> None:
    """A compiler makes a folder that was moved away again, for the .pyc that it was about to write."""
    one = Path(build_light(machine, lab, "cycler").folder)
    with ThreadPoolExecutor() as pool:
        with files.locked(bytecode_lock(one)):
            compile_bytecode(one)
            assert not (one / ".compiled").exists(), "another has it in hand"
            before = one.stat().st_ino
            again = pool.submit(build_light, machine, lab, "cycler", again=True)
            wait_for(lambda: files.is_locked(lock_of(one)), timeout=20, what="the build")
            with pytest.raises(TimeoutError):
                again.result(timeout=1)
            assert one.stat().st_ino == before
        assert Path(again.result(timeout=60).folder) == one and one.stat().st_ino != before
    compile_bytecode(one)
    assert (one / ".compiled").exists()


def test_an_old_generation_comes_back_when_it_cannot_be_built_again(
    machine: MachinePaths, lab: LabPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = build_light(machine, lab, "cycler")

    def full(*_words: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken, pytest.raises(DiskFull):
        broken.setattr(generations, "_install", full)
        build_light(machine, lab, "cycler", again=True)
    assert Generations(machine, lab).get(one.id) == one
    assert list(Path(one.folder).rglob("cycler/__init__.py"))


def test_using_what_is_not_there_changes_nothing(machine: MachinePaths, lab: LabPaths) -> None:
    kept = Generations(machine, lab)
    one = build_light(machine, lab, "cycler")
    kept.use(one.id, who="me", why="test")
    with pytest.raises(NotFound):
        kept.use("science-py312-nothing", who="me", why="test")
    assert kept.current() == one


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_build_cut_short_leaves_nothing_that_counts(tmp_path: Path, number: signal.Signals) -> None:
    machine, lab = MachinePaths(tmp_path / "machine"), LabPaths(tmp_path / "lab")
    flag = tmp_path / "installed"
    code = HOLD.format(tests=str(Path(__file__).parent), flag=str(flag), home=str(machine.home), lab=str(lab.root))
    builder = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, env=dict(os.environ))
    wait_for(flag.exists, timeout=60, what="the packages to be installed")
    assert list(machine.generations.glob("science-*"))
    builder.send_signal(number)
    builder.wait(10)
    assert Generations(machine, lab).list() == []
    if number == signal.SIGINT:
        assert not list(machine.generations.glob("science-*"))
    # The next build, of anything, removes what a kill left, and the same one succeeds.
    build_light(machine, lab, "packaging")
    assert len(list(machine.generations.glob("science-*"))) == 1
    assert build_light(machine, lab, "cycler").packages.keys() == {"cycler"}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_disk_that_fills_up_in_a_build_leaves_the_current_one_working(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", small], check=False).returncode:
        pytest.skip("this container may not mount")
    try:
        machine, lab = MachinePaths(small / "machine"), LabPaths(small / "lab")
        lab.environment.mkdir(parents=True)
        light = build_light(machine, lab, "cycler")
        kept = Generations(machine, lab)
        kept.use(light.id, who="me", why="test")
        whole = lock.read_lock(STACK.shipped_lock)
        assert whole is not None
        uv = Uv(machine, MirrorsSection())
        with pytest.raises(DiskFull, match="MB are free in") as caught:
            kept.build(STACK, whole, interpreters.find(STACK, "", uv), uv, lambda _text: None)
        assert "AILAB_HOME" in caught.value.remedy
        assert kept.list() == [light] and kept.current() == light
        assert [path.name for path in machine.generations.glob("science-*")] == [light.id]
        subprocess.run([light.program, "-c", "import cycler"], check=True)
    finally:
        subprocess.run(["umount", small], check=True)


def test_bytecode_of_the_same_module_is_shared(machine: MachinePaths, lab: LabPaths) -> None:
    one, two = build_light(machine, lab, "packaging"), build_light(machine, lab, "cycler", "packaging")
    compile_bytecode(Path(one.folder))
    compile_bytecode(Path(two.folder))
    inodes = []
    for made in (one, two):
        (found,) = Path(made.folder).rglob("packaging/__pycache__/markers.*.pyc")
        inodes.append(found.stat().st_ino)
    assert inodes[0] == inodes[1]
    assert list(Path(two.folder).rglob("cycler/__pycache__/__init__*.pyc"))


def test_what_a_generation_says_is_json(science: Generation) -> None:
    assert json.loads(json.dumps(science.to_json()))["packages"]["numpy"] == science.packages["numpy"]
