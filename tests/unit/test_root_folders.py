"""Root at work in a folder of another account, which changes it meanwhile: no file outside is touched."""

from __future__ import annotations

import os
import pwd
import shutil
import time
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from conftest import CHECKOUT, reachable_folder

from ailab import lab_account, root_folders
from ailab.cli import account, main
from ailab.environments import interpreters, portable
from ailab.environments.uv import Uv
from ailab.errors import Conflict, UsageError
from ailab.images import base
from ailab.paths import MachinePaths
from ailab.settings import MirrorsSection
from ailab.settings_file import SettingsError, load_settings

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="root's work")]
NOBODY = pwd.getpwnam("nobody")
RACES = 20


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with reachable_folder() as folder:
        monkeypatch.setenv("AILAB_HOME", str(folder / "machine"))
        yield folder


@pytest.fixture
def lab(place: Path) -> Path:
    """A lab of nobody's, as root's first `up` leaves it."""
    folder = place / "lab"
    for path in (folder, folder / ".ailab", folder / "notebooks"):
        path.mkdir()
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    return folder


@pytest.fixture
def outside(place: Path) -> Path:
    """Files of root's that no lab has to do with."""
    folder = place / "outside"
    (folder / "inner").mkdir(parents=True)
    for path in (folder / "shadow", folder / "inner/key"):
        path.write_text("secret")
        path.chmod(0o600)
    return folder


def owners(folder: Path) -> set[int]:
    return {path.lstat().st_uid for path in (folder, *folder.rglob("*"))}


def hand_over(lab: Path, *names: str, most: int = root_folders.MOST_ENTRIES) -> bool:
    with root_folders.opened(lab) as folder:
        return root_folders.hand_over(folder, names or ("lab.toml", "notebooks"), NOBODY, most=most)


def test_what_root_has_made_is_handed_over(lab: Path) -> None:
    made = lab / "notebooks/course/week"
    made.mkdir(parents=True)
    for path in (lab / "lab.toml", made / "one.ipynb"):
        path.write_text("")
    assert hand_over(lab) and owners(lab) == {NOBODY.pw_uid}


def test_a_link_is_never_followed_and_a_hard_link_never_handed_over(lab: Path, outside: Path) -> None:
    (lab / "notebooks/data").symlink_to(outside)
    (lab / "lab.toml").symlink_to(outside / "shadow")
    os.link(outside / "inner/key", lab / "notebooks/key")
    os.mkfifo(lab / "notebooks/pipe")
    assert hand_over(lab) and owners(outside) == {0}
    (lab / "notebooks").rename(lab / "real")
    (lab / "notebooks").symlink_to(outside)
    assert hand_over(lab) and owners(outside) == {0}


def test_a_folder_that_becomes_a_link_during_the_walk(
    lab: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the worst moment: after it was looked at, before it is opened; the file between the look and the change."""
    inner = lab / "notebooks/inner"
    inner.mkdir()
    (inner / "key").write_text("")
    (lab / "notebooks/shadow").write_text("")
    opened = os.open

    def swapped(name: str | os.PathLike[str], flags: int, *words: int, **named: int) -> int:
        if name in ("inner", "shadow") and not (lab / "notebooks" / name).is_symlink():
            (lab / "notebooks" / name).rename(lab / f"{name}-was")
            (lab / "notebooks" / name).symlink_to(outside / name)
        return opened(name, flags, *words, **named)

    monkeypatch.setattr(os, "open", swapped)
    assert hand_over(lab) and owners(outside) == {0}
    assert (lab / "notebooks/inner").is_symlink() and (lab / "notebooks/shadow").is_symlink(), "both were swapped"


def test_a_hard_link_that_goes_before_its_names_are_counted(
    lab: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.link(outside / "shadow", lab / "notebooks/shadow")
    stat = os.stat

    def late(path: str | int, **named: int) -> os.stat_result:
        if path == "shadow":
            (lab / "notebooks/shadow").unlink(missing_ok=True)
        return stat(path, **named)

    monkeypatch.setattr(os, "stat", late)
    assert hand_over(lab) and owners(outside) == {0} and not (lab / "notebooks/shadow").exists()


def test_a_folder_that_vanishes_is_passed_over_and_a_huge_tree_is_not_waited_for(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, stays = lab / "notebooks/gone", lab / "notebooks/stays"
    for folder in (gone, stays):
        folder.mkdir()
        (folder / "file").write_text("")
    opened = os.open

    def vanishing(name: str | os.PathLike[str], flags: int, *words: int, **named: int) -> int:
        if name == "gone":
            shutil.rmtree(gone, ignore_errors=True)
        return opened(name, flags, *words, **named)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", vanishing)
        assert hand_over(lab)
    assert not gone.exists() and owners(lab) == {NOBODY.pw_uid}
    for number in range(10):
        (stays / str(number)).write_text("")
    (lab / "lab.toml").write_text("")
    assert not hand_over(lab, most=5), "the rest was not looked at"
    assert (lab / "lab.toml").stat().st_uid == NOBODY.pw_uid, "the lab's own files come first"


def test_the_race_for_a_file_outside_of_the_lab(place: Path) -> None:
    """A short one of the bench's, which runs it 200 times."""
    spec = spec_from_file_location("hand_over_race", CHECKOUT / "bench/hand_over_race.py")
    assert spec is not None and spec.loader is not None
    bench = module_from_spec(spec)
    spec.loader.exec_module(bench)
    assert bench.race(place, RACES) > 0


def test_root_reads_the_settings_with_the_rights_of_the_account(lab: Path, outside: Path) -> None:
    settings, groups = lab / "lab.toml", os.getgroups()
    settings.symlink_to(outside / "shadow")
    with lab_account.reading(lab), pytest.raises(SettingsError, match="Permission denied"):
        load_settings(settings)
    assert os.geteuid() == 0 and os.getegid() == 0 and os.getgroups() == groups
    settings.unlink()
    os.mkfifo(settings)
    began = time.monotonic()
    with lab_account.reading(lab), pytest.raises(SettingsError, match="not a regular file"):
        load_settings(settings)
    assert time.monotonic() - began < 5, "nobody writes into that pipe"


def test_a_path_that_leads_to_a_system_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it looks like: the folder would change hands."""

    def opened(*_words: object, **_more: object) -> None:
        raise AssertionError("it has been opened")

    monkeypatch.setattr(root_folders, "opened", opened)
    for words in (["init", "/var/lib/.."], ["--lab", "/var/lib/..", "init"]):
        assert main.run(words) == 2


def test_many_notebooks_do_not_keep_the_state_from_being_handed_over(lab: Path) -> None:
    for name in ("notebooks", ".ailab/run"):
        (lab / name).mkdir(parents=True, exist_ok=True)
    for number in range(30):
        (lab / "notebooks" / str(number)).touch()
    with root_folders.opened(lab) as folder:
        for names, whole in ((account._STATE, True), (account._PEOPLES, False)):
            assert root_folders.hand_over(folder, names, NOBODY, most=20) is whole
    assert (lab / ".ailab/run").stat().st_uid == NOBODY.pw_uid


def test_the_state_of_another_account_makes_nobody_the_owner(lab: Path) -> None:
    """Else who may write the lab's folder would have root run it as whomever they like."""
    assert lab_account.account_of(lab) == NOBODY
    (lab / ".ailab").rename(lab / "was")
    (lab / ".ailab").symlink_to(lab / "was")
    with pytest.raises(Conflict, match="is not a folder"):
        lab_account.account_of(lab)
    (lab / ".ailab").unlink()
    (lab / ".ailab").mkdir()
    os.chown(lab / ".ailab", 4711, 4711)
    with pytest.raises(Conflict, match="4711"):
        lab_account.account_of(lab)


def test_a_link_of_another_account_on_the_way_to_a_lab_is_refused(place: Path, outside: Path) -> None:
    theirs = place / "theirs"
    theirs.symlink_to(outside)
    assert root_folders.real_path(theirs / "new") == outside / "new", "root's own is followed"
    os.lchown(theirs, NOBODY.pw_uid, NOBODY.pw_gid)
    for path in (theirs, theirs / "new/lab"):
        with pytest.raises(UsageError, match=f"{theirs}.*nobody"):
            root_folders.real_path(path)
        with pytest.raises(UsageError, match="nobody"):
            account.prepare(path)
    assert not (outside / "new").exists() and owners(outside) == {0}


def test_the_folders_of_one_account_are_never_given_to_another(place: Path) -> None:
    machine = MachinePaths(place / "machine")
    account.prepare_machine(machine, NOBODY)
    assert machine.generations.stat().st_uid == NOBODY.pw_uid and machine.home.stat().st_uid == 0
    for folder in (machine.locks, machine.cache, machine.account_home):
        assert folder.stat().st_mode & 0o777 == 0o700
    other = pwd.getpwnam("daemon")
    with pytest.raises(Conflict, match="nobody"):
        account.prepare_machine(machine, other)
    shutil.rmtree(machine.cache)
    os.lchown(machine.home, NOBODY.pw_uid, NOBODY.pw_gid)
    with pytest.raises(Conflict, match="nobody"):
        account.prepare_machine(machine, NOBODY)


@pytest.mark.parametrize(
    "mirror",
    ["--customize-hook=touch /tmp/x", "deb [trusted=yes] http://mirror/debian bookworm main", "/etc/shadow", "-"],
)
def test_root_makes_no_base_by_what_is_no_address(mirror: str) -> None:
    """lab.toml is the account's, and mmdebstrap runs as root: it would take a hook, and a mirror that is trusted."""
    with pytest.raises(UsageError, match="not the address of a Debian mirror"):
        base.bootstrap(None, mirror, lambda _text: None)  # type: ignore[arg-type]


def test_a_pipe_in_the_interpreters_folder_holds_nobody_up(place: Path) -> None:
    """Root looks there for what it has copied, and the folder is the account's."""
    copy = place / "3.10.1-copied-x"
    copy.mkdir()
    os.mkfifo(copy / portable.ORIGIN)
    assert portable.origin(copy) is None and interpreters.copied(Path("/usr/bin/python3"), place) is None


def test_an_interpreter_is_given_away_before_it_is_where_the_account_can_change_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = MachinePaths(place / "machine")
    account.prepare_machine(machine, NOBODY)
    seen: list[int] = []

    def copied(program: Path, target: Path) -> Path:
        (target / "bin").mkdir(parents=True)
        (target / "bin/python3.10").write_text("")
        return target / "bin/python3.10"

    rename = Path.rename

    def renamed(self: Path, target: Path) -> Path:
        seen.extend(owners(self))
        return rename(self, target)

    monkeypatch.setattr(portable, "copy", copied)
    monkeypatch.setattr(Path, "rename", renamed)
    found = interpreters.Interpreter(Path("/usr/bin/python3.10"), "3.10.1")
    for _again in range(2):
        interpreters._copy(found, Uv(machine, MirrorsSection()), NOBODY)
    assert set(seen) == {NOBODY.pw_uid} and len(list(machine.pythons.iterdir())) == 1


def test_root_s_commands_on_a_user_s_lab_leave_the_folders_of_root_s_labs_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "ROOTS_HOME", place / "machine")
    user = pwd.struct_passwd(("ada", "x", NOBODY.pw_uid, NOBODY.pw_gid, "", str(place / "ada"), ""))
    theirs = account.machine_of(user)
    assert theirs.home == place / "ada/.local/share/ailab", "theirs, whether or not root has one"
    account.prepare_machine(theirs, user)
    assert not theirs.home.exists(), "they make it themselves"
    ours = MachinePaths(place / "machine")
    account.prepare_machine(ours, user)
    assert account.machine_of(user) == ours, "theirs from before"
