"""`env add`, `remove`, `import` and `lock --upgrade` on a small index: in one step, or all as it was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from small_index import Index, disagreement, opened, small_lab

from ailab import change, stacks
from ailab.environments import exporting, importing, lock, wishes
from ailab.environments.uv_errors import DoNotFit
from ailab.errors import AilabError, Conflict, NotFound, UsageError
from ailab.provision import uv_of

# The first is the check's, the second `./check --long`'s.
KILLS = [8, pytest.param(50, marks=pytest.mark.long)]


@contextmanager
def quiet(_title: str) -> Iterator[Callable[[str], None]]:
    yield lambda _text: None


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Path, Index]]:
    with small_lab(tmp_path) as made:
        yield made


def add(root: Path, *packages: str) -> change.Made | None:
    def edited(own: list[str], stack: stacks.Stack, _lock: lock.Lock | None) -> wishes.Edit:
        return wishes.add(own, packages, stack)

    return change.change_packages(opened(root), edited, "env add", quiet, print)[1]


def remove(root: Path, *packages: str) -> change.Made | None:
    def edited(own: list[str], stack: stacks.Stack, known: lock.Lock | None) -> wishes.Edit:
        return wishes.remove(own, packages, stack, known)

    return change.change_packages(opened(root), edited, "env remove", quiet, print)[1]


def versions(root: Path) -> dict[str, str]:
    known = lock.read_lock(opened(root).paths.lock)
    assert known is not None
    return {package.name: package.version for package in known.packages}


def everything(root: Path) -> tuple[bytes, bytes | None, str]:
    paths = opened(root).paths
    current = opened(root).generations.current()
    return (
        paths.settings.read_bytes(),
        paths.lock.read_bytes() if paths.lock.exists() else None,
        current.id if current is not None else "",
    )


def test_add_and_remove_change_all_three_and_keep_comments(small: tuple[Path, Index]) -> None:
    root, index = small
    index.add("extra", "1.0")
    made = add(root, "extra")
    assert made is not None and made.generation.packages == {"base": "1.0", "base-lib": "1.5", "extra": "1.0"}
    assert disagreement(opened(root)) == ""
    assert 'packages = ["extra"]  # what we want beside it' in (root / "lab.toml").read_text()
    assert subprocess.run([made.generation.program, "-c", "import extra"], check=False).returncode == 0
    assert [entry["why"] for entry in opened(root).generations.history()] == ["env add"]
    remove(root, "Extra")
    assert disagreement(opened(root)) == "" and "extra" not in versions(root)
    assert "packages = []  # what we want beside it" in (root / "lab.toml").read_text()


def test_what_is_there_is_not_added_and_what_is_not_there_not_removed(small: tuple[Path, Index]) -> None:
    root, index = small
    index.add("extra", "1.0", ["deep"])
    index.add("deep", "1.0")
    add(root, "extra")
    before = everything(root)
    assert add(root, "extra", "base") is None
    for name, said in (("nothing", "is not in"), ("base", "belongs to Small"), ("deep", "another package needs it")):
        with pytest.raises(NotFound, match=said) as caught:
            remove(root, name)
        assert caught.value.remedy
    assert everything(root) == before


def test_a_package_of_the_same_name_takes_the_place_of_the_old(small: tuple[Path, Index]) -> None:
    root, index = small
    for version in ("1.0", "2.0"):
        index.add("extra", version)
    add(root, "extra")
    add(root, "extra<2")
    assert 'packages = ["extra<2"]' in (root / "lab.toml").read_text() and versions(root)["extra"] == "1.0"


def test_one_package_more_moves_nothing_though_all_could_be_newer(small: tuple[Path, Index]) -> None:
    root, index = small
    index.add("one", "1.0")
    add(root, "one")
    for name, version in (("one", "2.0"), ("base-lib", "1.9"), ("two", "1.0")):
        index.add(name, version)
    add(root, "two")
    assert versions(root) == {"base": "1.0", "base-lib": "1.5", "one": "1.0", "two": "1.0"}
    index.add("three", "1.0", ["one>=2"])
    made = add(root, "three")
    assert made is not None and made.before is not None
    assert lock.moved(made.before, made.after) == ["one 1.0 -> 2.0"], "only what had to move"


def test_hashes_of_what_stays_stay_too(small: tuple[Path, Index]) -> None:
    root, index = small
    index.add("one", "1.0")
    add(root, "one")
    before = {package for package in lock.read_lock(root / "lab.lock").packages}  # type: ignore[union-attr]
    index.add_source("one", "1.0", "")
    index.add("two", "1.0")
    add(root, "two")
    after = {package for package in lock.read_lock(root / "lab.lock").packages}  # type: ignore[union-attr]
    assert before < after


def test_upgrade_moves_what_is_named_or_all_within_the_bounds(small: tuple[Path, Index]) -> None:
    root, index = small
    for name in ("one", "two"):
        index.add(name, "1.0")
    add(root, "one", "two")
    for name, version in (("one", "2.0"), ("two", "2.0"), ("base-lib", "1.9")):
        index.add(name, version)
    before, after = change.upgrade_lock(opened(root), ["one"], quiet)
    assert lock.moved(before, after) == ["one 1.0 -> 2.0"]
    before, after = change.upgrade_lock(opened(root), [], quiet)
    assert lock.moved(before, after) == ["base-lib 1.5 -> 1.9", "two 1.0 -> 2.0"]
    stamp = (root / "lab.lock").stat().st_mtime_ns
    change.upgrade_lock(opened(root), [], quiet)
    assert (root / "lab.lock").stat().st_mtime_ns == stamp, "nothing moved, nothing is written"
    with pytest.raises(NotFound, match="three"):
        change.upgrade_lock(opened(root), ["three"], quiet)


def test_a_conflict_names_both_origins_the_reason_and_what_fits(small: tuple[Path, Index]) -> None:
    root, index = small
    index.add("extra", "1.0", ["base-lib"])
    index.add("extra", "2.0", ["base-lib>=2"])
    add(root, "extra")
    before = everything(root)
    with pytest.raises(DoNotFit) as caught:
        add(root, "extra>=2")
    assert caught.value.message == (
        "extra>=2, which you ask for, and base-lib<2, a bound of Small, cannot go together: "
        "base-lib 2 takes away what base calls."
    )
    assert caught.value.remedy == "extra 1.0 fits: ailab env add extra"
    assert everything(root) == before


def test_two_packages_of_ones_own_that_conflict_are_both_named(small: tuple[Path, Index]) -> None:
    root, index = small
    for version in ("1.0", "2.0"):
        index.add("shared", version)
    index.add("one", "1.0", ["shared<2"])
    index.add("two", "1.0", ["shared>=2"])
    with pytest.raises(DoNotFit, match="one, two cannot go together") as caught:
        add(root, "one", "two")
    assert "Leave out one of them" in caught.value.remedy
    assert opened(root).generations.current() is None and not (root / "lab.lock").exists()


def test_a_source_that_cannot_be_built_is_named_with_the_apt_packages(small: tuple[Path, Index]) -> None:
    root, index = small
    index.add("extra", "1.0")
    add(root, "extra")
    index.add_source(
        "wants-c",
        "1.0",
        "def build_wheel(*_words, **_named):\n    raise SystemExit('fatal error: ffi.h: No such file')",
    )
    before = everything(root)
    with pytest.raises(AilabError, match=r"wants-c==1\.0 has no wheel that fits") as caught:
        add(root, "wants-c")
    assert "apt-get install libffi-dev;" in caught.value.remedy
    assert everything(root) == before


def test_a_name_that_the_index_does_not_have_changes_nothing(small: tuple[Path, Index]) -> None:
    root, _index = small
    before = everything(root)
    with pytest.raises(AilabError, match="does not have nothing-of-the-kind"):
        add(root, "nothing-of-the-kind")
    assert everything(root) == before


def test_an_edit_by_hand_in_the_middle_of_an_add_is_not_lost(small: tuple[Path, Index]) -> None:
    root, index = small
    index.add("extra", "1.0")

    @contextmanager
    def meddling(title: str) -> Iterator[Callable[[str], None]]:
        yield lambda _text: None
        if title.startswith("Building"):
            (root / "lab.toml").write_text((root / "lab.toml").read_text() + "# mine\n")

    with pytest.raises(Conflict, match="changed meanwhile"):
        change.change_packages(
            opened(root), lambda own, stack, _lock: wishes.add(own, ["extra"], stack), "env add", meddling, print
        )
    text = (root / "lab.toml").read_text()
    assert text.endswith("# mine\n") and "extra" not in text
    assert opened(root).generations.current() is None and not (root / "lab.lock").exists()


def test_a_requirements_file_is_added_in_one_step(small: tuple[Path, Index], tmp_path: Path) -> None:
    root, index = small
    for name in ("one", "two"):
        index.add(name, "1.0")
    file = tmp_path / "requirements.txt"
    file.write_text("one==1.0\ntwo\nbase-lib==2.0\ngit+https://example.org/x\n")
    found = importing.within(importing.read_packages(file), stacks.load_stack("small"))
    assert [what for what, _why in found.left] == ["git+https://example.org/x", "base-lib==2.0"]
    add(root, *found.packages)
    assert versions(root) == {"base": "1.0", "base-lib": "1.5", "one": "1.0", "two": "1.0"}


def test_exports_install_what_the_lock_says(small: tuple[Path, Index], tmp_path: Path) -> None:
    import tomllib

    from packaging.pylock import Pylock

    root, index = small
    index.add("extra", "1.0")
    add(root, "extra")
    known, stack, uv = lock.read_lock(root / "lab.lock"), stacks.load_stack("small"), uv_of(opened(root))
    assert known is not None
    (tmp_path / "requirements.txt").write_text(exporting.requirements(known, stack))
    (tmp_path / "pylock.toml").write_text(exporting.pylock(known, stack, uv))
    document = tomllib.loads((tmp_path / "pylock.toml").read_text())
    Pylock.from_dict(document).validate()
    assert {(one["name"], one["version"]) for one in document["packages"]} == set(versions(root).items())
    hashes = {f"sha256:{file['hashes']['sha256']}" for one in document["packages"] for file in one["wheels"]}
    assert hashes == {known for package in known.packages for known in package.hashes}
    uv.run("venv", "--quiet", tmp_path / "venv")
    program = tmp_path / "venv/bin/python"
    for file in ("requirements.txt", "pylock.toml"):
        uv.run("pip", "sync", "--quiet", "--require-hashes", "--python", program, tmp_path / file)
        subprocess.run([program, "-c", "import base, base_lib, extra"], check=True)


def test_a_pylock_from_an_index_with_other_files_is_refused(small: tuple[Path, Index]) -> None:
    root, index = small
    index.add("extra", "1.0")
    add(root, "extra")
    index.add("extra", "1.0", ["base"])
    known = lock.read_lock(root / "lab.lock")
    assert known is not None
    with pytest.raises(AilabError, match=r"extra==1\.0"):
        exporting.pylock(known, stacks.load_stack("small"), uv_of(opened(root)))


def test_a_lock_with_nothing_changed_needs_neither_a_registry_nor_a_python(
    small: tuple[Path, Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ailab import command, provision

    root, index = small
    index.add("extra", "1.0")
    add(root, "extra")
    before = everything(root)
    monkeypatch.setattr(command, "run", lambda *words, **_more: pytest.fail(f"started {words}"))
    assert provision.ensure_lock(opened(root))[1] is False
    assert everything(root) == before


def in_a_child(work: Callable[[], object]) -> int:
    """Do `work` in a process of its own; its pid."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setsid()
            work()
            status = 0
        finally:
            os._exit(status)
    return child


@pytest.mark.parametrize("kills", KILLS)
def test_kill_at_random_moments_of_an_add(small: tuple[Path, Index], kills: int) -> None:
    """lab.toml, lab.lock and the generation agree after every kill, and the next command works."""
    root, index = small
    for number in range(kills + 2):
        index.add(f"extra-{number}", "1.0")
    add(root, "extra-0")
    started = time.monotonic()
    add(root, "extra-1")
    whole = time.monotonic() - started
    moments, outcomes = random.Random(3), {"before": 0, "after": 0}
    for number in range(2, kills + 2):
        name, was = f"extra-{number}", everything(root)
        child = in_a_child(partial(add, root, name))
        time.sleep(moments.uniform(0, 1.5 * whole))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert disagreement(opened(root)) == ""
        outcomes["before" if everything(root) == was else "after"] += 1
        add(root, name)
        assert disagreement(opened(root)) == "" and versions(root)[name] == "1.0"
        current = opened(root).generations.current()
        assert current is not None
        module = name.replace("-", "_")
        subprocess.run([current.program, "-c", f"import base, base_lib, extra_0, {module}"], check=True)
        remove(root, name)
    print(outcomes)
    assert outcomes["before"] and not list(root.glob(".lab.*"))


def test_a_lab_toml_that_cannot_be_meant_is_refused_before_anything_is_done(small: tuple[Path, Index]) -> None:
    root, _index = small
    (root / "lab.toml").write_text("[environment]\npackages = 3\n")
    with pytest.raises(UsageError, match=r"lab\.toml:2"):
        add(root, "extra")
    assert not (root / "lab.lock").exists()
