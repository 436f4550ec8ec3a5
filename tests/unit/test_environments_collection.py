"""Garbage collection on really built generations: what somebody needs stays, the rest goes, in one piece."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_environments_build import build_light

from ailab import files
from ailab.cli import env_generations
from ailab.environments import collection
from ailab.environments.collection import Kept, Pins, collect
from ailab.environments.generations import Generation, Generations
from ailab.environments.halves import lock_of
from ailab.environments.labs import KnownLab, Labs
from ailab.environments.uv import Uv
from ailab.environments.verification import verify
from ailab.lab import Lab
from ailab.paths import LabPaths, MachinePaths
from ailab.settings import MirrorsSection, Settings

NAMES = (("cycler",), ("packaging",), ("cycler", "packaging"))
SLEEP = "import time; print('up', flush=True); time.sleep(600)"


@pytest.fixture
def machine(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> MachinePaths:
    """A machine of its own, whose cache is linked from one that all tests of this run fill."""
    made = MachinePaths(tmp_path / "machine")
    made.home.mkdir()
    made.cache.symlink_to(tmp_path_factory.getbasetemp() / "shared-cache")
    (tmp_path_factory.getbasetemp() / "shared-cache").mkdir(exist_ok=True)
    return made


@pytest.fixture
def lab(tmp_path: Path) -> LabPaths:
    return LabPaths(tmp_path / "lab")


@pytest.fixture
def three(machine: MachinePaths, lab: LabPaths) -> list[Generation]:
    return [build_light(machine, lab, *names) for names in NAMES]


def kept(done: collection.Collected) -> set[tuple[str, str]]:
    return {(one.id, one.reason) for one in done.kept}


def gone(done: collection.Collected) -> set[str]:
    return {one.id for one in done.removed}


def test_what_is_current_in_any_lab_stays(
    machine: MachinePaths, lab: LabPaths, tmp_path: Path, three: list[Generation]
) -> None:
    one, two, three_ = three
    mine, other = Generations(machine, lab), Generations(machine, LabPaths(tmp_path / "other"))
    mine.use(one.id, who="me", why="test")
    other.use(two.id, who="you", why="test")
    done = collect(machine, mine)
    assert kept(done) == {(one.id, "current"), (two.id, "current")} and gone(done) == {three_.id}
    assert mine.list() == [one, two] and mine.current() == one and other.current() == two
    assert not list(machine.generations.glob(".gone-*"))
    # The other lab is deleted: what it used goes with the next collection, and so does the note of it.
    shutil.rmtree(tmp_path / "other")
    assert gone(collect(machine, mine)) == {two.id}
    assert Labs(machine).known() == (KnownLab(lab.root, one.id),)


def test_the_way_back_stays_unless_all_is_asked_for(
    machine: MachinePaths, lab: LabPaths, three: list[Generation]
) -> None:
    _one, two, three_ = three
    mine = Generations(machine, lab)
    for used in three:
        mine.use(used.id, who="me", why="test")
    assert kept(collect(machine, mine)) == {(three_.id, "current"), (two.id, "previous")}
    assert mine.list() == [two, three_] and mine.before_current() == two.id
    assert mine.rollback(who="me") == two
    assert gone(collect(machine, mine, with_previous=True)) == {three_.id}
    assert mine.list() == [two]


def test_a_pin_holds_until_it_is_taken_away(machine: MachinePaths, lab: LabPaths, three: list[Generation]) -> None:
    one = three[0]
    mine, pins = Generations(machine, lab), Pins(machine)
    pins.pin(one, who="ada")
    assert pins.who(one.id) == "ada"
    assert collect(machine, mine).kept == (Kept(one.id, "pinned", "ada"),)
    assert mine.list() == [one]
    assert pins.unpin(one) and not pins.unpin(one)
    assert gone(collect(machine, mine)) == {one.id} and mine.list() == []


def test_what_a_process_runs_from_stays_until_it_ends(
    machine: MachinePaths, lab: LabPaths, three: list[Generation]
) -> None:
    """By its command line, also through the link of a lab that has moved on, and by the files that it has mapped."""
    one, two, _three = three
    mine = Generations(machine, lab)
    mine.use(one.id, who="me", why="test")
    through_link = subprocess.Popen(
        [lab.current / "bin/python", "-c", SLEEP], stdout=subprocess.PIPE, env={"VIRTUAL_ENV": one.folder}
    )
    direct = subprocess.Popen([two.program, "-c", SLEEP], stdout=subprocess.PIPE)
    try:
        for process in (through_link, direct):
            assert process.stdout is not None and process.stdout.readline() == b"up\n"
        lab.current.unlink()
        done = collect(machine, mine, with_previous=True)
        assert {(one.id, "running", str(through_link.pid)), (two.id, "running", str(direct.pid))} == {
            (one.id, one.reason, one.who) for one in done.kept
        }
    finally:
        for process in (through_link, direct):
            process.kill()
            process.wait()
    assert gone(collect(machine, mine, with_previous=True)) == {one.id, two.id}


def test_a_mapped_file_is_use(machine: MachinePaths, three: list[Generation]) -> None:
    (module,) = Path(three[0].folder).rglob("cycler/__init__.py")
    code = (
        f"import mmap, sys; f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, prot={mmap.PROT_READ}); {SLEEP}"
    )
    with module.open("rb") as stream:
        # The name is read from standard input's link, so that the command line does not tell.
        code = code.replace("open(sys.argv[1], 'rb')", "sys.stdin")
        process = subprocess.Popen([sys.executable, "-c", code], stdin=stream, stdout=subprocess.PIPE, cwd="/")
    try:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        assert list(collection.running(three)) == [(three[0].id, process.pid)]
    finally:
        process.kill()
        process.wait()


def test_a_dry_run_changes_nothing(machine: MachinePaths, lab: LabPaths, three: list[Generation]) -> None:
    mine = Generations(machine, lab)
    told = collect(machine, mine, dry_run=True)
    assert mine.list() == three and gone(told) == {one.id for one in three}
    assert told.freed_bytes == collect(machine, mine).freed_bytes > 0


def test_one_that_is_being_built_anew_stays(machine: MachinePaths, lab: LabPaths, three: list[Generation]) -> None:
    one = three[0]
    with files.locked(lock_of(Path(one.folder))):
        done = collect(machine, Generations(machine, lab))
    assert (one.id, "building") in kept(done) and one.id not in gone(done)
    assert verify(one).ok


def test_on_a_machine_without_generations_there_is_nothing_to_do(machine: MachinePaths, lab: LabPaths) -> None:
    assert collect(machine, Generations(machine, lab)) == collection.Collected(False, (), ())


def test_what_a_killed_collection_left_is_removed(
    machine: MachinePaths, lab: LabPaths, three: list[Generation]
) -> None:
    half, moved = machine.generations / "science-py311-00000000", machine.generations / ".gone-science-py311-1"
    for folder in (half, moved):
        (folder / "lib").mkdir(parents=True)
    Generations(machine, lab).use(three[0].id, who="me", why="test")
    collect(machine, Generations(machine, lab))
    assert not half.exists() and not moved.exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another account")
def test_a_lab_that_is_closed_to_us_is_taken_at_its_word(
    machine: MachinePaths, lab: LabPaths, three: list[Generation]
) -> None:
    Generations(machine, lab).use(three[0].id, who="me", why="test")
    lab.root.chmod(0o700)
    for folder in (machine.home, *machine.home.parents[:4]):
        folder.chmod(folder.stat().st_mode | 0o755)
    os.seteuid(65534)
    try:
        assert Labs(machine).known() == (KnownLab(lab.root, three[0].id),)
    finally:
        os.seteuid(0)


def test_what_is_freed_is_what_nobody_else_links(tmp_path: Path) -> None:
    machine, lab = MachinePaths(tmp_path / "machine"), LabPaths(tmp_path / "lab")
    one, both = (build_light(machine, lab, *names) for names in (("cycler",), ("cycler", "packaging")))
    alone = collection.measure([one])[0]
    assert alone.freed_bytes > 0 and alone.shared_bytes > 0, "the modules are links into the cache"
    (module,) = Path(one.folder).rglob("cycler/__init__.py")
    blocks = module.stat().st_blocks * 512
    # Without the cache's link, the file is freed with the last of the two that have it.
    for path in machine.cache.rglob("__init__.py"):
        if path.samefile(module):
            path.unlink()
    assert collection.measure([one])[0].freed_bytes == alone.freed_bytes
    first, second = collection.measure([one, both])
    assert first.freed_bytes == alone.freed_bytes
    assert second.freed_bytes == collection.measure([both])[0].freed_bytes + blocks


def test_downloads_of_what_has_gone_can_go_too(tmp_path: Path) -> None:
    machine, lab = MachinePaths(tmp_path / "machine"), LabPaths(tmp_path / "lab")
    one, two = build_light(machine, lab, "cycler"), build_light(machine, lab, "packaging")
    uv = Uv(machine, MirrorsSection())
    mine = Generations(machine, lab)
    mine.use(two.id, who="me", why="test")
    assert collection.unused_downloads(machine, [one, two]) == ()
    assert gone(collect(machine, mine)) == {one.id}
    unused = collection.unused_downloads(machine, mine.list())
    assert unused == ("cycler",)
    assert collection.drop_downloads(machine, unused, uv) > 0
    assert collection.unused_downloads(machine, mine.list()) == () and collection.drop_downloads(machine, (), uv) == 0
    assert verify(two).ok
    assert verify(build_light(machine, lab, "cycler")).ok


def test_the_list_says_why_and_what_changed(machine: MachinePaths, lab: LabPaths, three: list[Generation]) -> None:
    one, two, both = three
    opened = Lab(lab, machine, Settings())
    opened.generations.use(one.id, who="ada", why="lab.toml")
    opened.generations.use(both.id, who="ada", why="use")
    Pins(machine).pin(two, who="bob")
    first, second, third = env_generations.described(opened)
    assert (first["id"], first["why"], first["who"], first["changed"]) == (one.id, "lab.toml", "ada", None)
    assert (second["why"], second["pinned"], second["labs"]) == (None, "bob", [])
    assert (third["current"], third["labs"], third["changed"]["before"]) == (True, [str(lab.root)], one.id)
    assert third["changed"]["added"] == {"packaging": both.packages["packaging"]} and third["changed"]["removed"] == {}
    assert third["summary"] == f"+ packaging {both.packages['packaging']}"


def test_a_person_reads_what_went_and_why_the_rest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AILAB_LANG", "en")
    done = collection.Collected(
        False,
        (collection.Removed("old", 2_000_000, 5),),
        (Kept("new", "current", "/srv/lab"), Kept("new", "running", "17")),
        ("numpy",),
        1_000_000,
    )
    assert env_generations.as_text(done) == [
        "gone: old (2.0 MB)",
        "stays: new (in use in /srv/lab; process 17 runs from it)",
        "Dropped the downloads of 1 packages.",
        "Freed 3.0 MB.",
    ]
