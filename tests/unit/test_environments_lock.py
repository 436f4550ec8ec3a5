"""lab.lock: the shipped ones, what is read back, what is refused with its line, and a real resolution around them."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.markers import Marker

from ailab.environments import interpreters, lock, upgrade
from ailab.environments.lock_file import BadLock, Image
from ailab.environments.markers import simplify, target
from ailab.environments.uv import Uv
from ailab.errors import UsageError
from ailab.paths import MachinePaths
from ailab.settings import MirrorsSection
from ailab.stacks import Cuda, list_stacks, load_stack

SCIENCE = load_stack("science")


@pytest.fixture
def uv(tmp_path: Path) -> Uv:
    return Uv(MachinePaths(tmp_path / "machine"), MirrorsSection())


@pytest.mark.parametrize("name", list_stacks())
def test_a_shipped_lock_is_current_whole_and_without_an_address(name: str) -> None:
    stack = load_stack(name)
    found = lock.read_lock(stack.shipped_lock)
    assert found is not None and found.inputs == lock.inputs_of(stack, [])
    assert found.text() == stack.shipped_lock.read_text()
    assert "://" not in found.text()
    for python in stack.pythons:
        for machine in stack.platforms:
            where = target(f"{python}.9", machine)
            applying = [one.name for one in found.packages if not one.marker or Marker(one.marker).evaluate(where)]
            assert len(applying) == len(set(applying)), "one version of each package on one machine"
            assert {"ipykernel", "numpy", "pip"} <= set(applying)


def test_a_lab_without_packages_gets_the_tested_lock_and_it_stays_untouched(tmp_path: Path, uv: Uv) -> None:
    path = tmp_path / "lab.lock"
    made, written = lock.ensure_lock(path, SCIENCE, [], uv, Path("/nonexistent"))
    assert written and path.read_text() == SCIENCE.shipped_lock.read_text()
    stamp = path.stat().st_mtime_ns
    again, written = lock.ensure_lock(path, SCIENCE, [], uv, Path("/nonexistent"))
    assert not written and again == made and path.stat().st_mtime_ns == stamp


def test_one_package_more_moves_nothing_that_was_tested(tmp_path: Path, uv: Uv) -> None:
    python = interpreters.find(SCIENCE, "", uv).program
    said: list[str] = []
    made, _written = lock.ensure_lock(tmp_path / "lab.lock", SCIENCE, ["humanize"], uv, python, said.append)
    shipped = lock.read_lock(SCIENCE.shipped_lock)
    assert shipped is not None and not said
    assert {one.name for one in made.packages} - {one.name for one in shipped.packages} == {"humanize"}
    assert {one.pin() for one in shipped.packages} <= {one.pin() for one in made.packages}
    assert lock.read_lock(tmp_path / "lab.lock") == made
    assert "://" not in made.text()


def test_a_wish_that_the_tested_versions_do_not_allow_says_what_moved(tmp_path: Path, uv: Uv) -> None:
    python = interpreters.find(SCIENCE, "", uv).program
    said: list[str] = []
    made, _written = lock.ensure_lock(tmp_path / "lab.lock", SCIENCE, ["pandas<2.3"], uv, python, said.append)
    assert all(one.version.startswith("2.2.") for one in made.packages if one.name == "pandas")
    assert len(said) == 1 and "pandas" in said[0] and "->" in said[0]


def test_a_conflict_leaves_the_lock_as_it_was(tmp_path: Path, uv: Uv) -> None:
    python = interpreters.find(SCIENCE, "", uv).program
    path = tmp_path / "lab.lock"
    lock.ensure_lock(path, SCIENCE, [], uv, python)
    before = path.read_bytes()
    with pytest.raises(Exception, match=r"numpy<1\.20, numpy>2 cannot go together") as caught:
        lock.ensure_lock(path, SCIENCE, ["numpy<1.20", "numpy>2"], uv, python)
    assert "leave it out" in caught.value.remedy  # type: ignore[attr-defined]  # every error of ours has one
    assert path.read_bytes() == before and list(tmp_path.glob(".lab.lock*")) == []


@pytest.mark.parametrize("wish", ["six @ https://example.org/six.whl", "six --index-url x", "a b", "six; what"])
def test_a_wish_that_is_no_package_by_name_is_refused(tmp_path: Path, uv: Uv, wish: str) -> None:
    with pytest.raises(UsageError, match=r"\[environment\] packages"):
        lock.ensure_lock(tmp_path / "lab.lock", SCIENCE, [wish], uv, Path(sys.executable))


BROKEN = [
    ("name = ", 'name = "x\\n--index-url http://127.0.0.1"', "package.0.name"),
    ("hashes = [", "hashes = []\nignored = [", "package.0"),
    ("version = ", "version = 3", "package.0.version"),
    ("[[package]]", "<<<<<<< HEAD\n[[package]]", "conflict"),
    ("stack = ", "stack = ", "not TOML"),
]


@pytest.mark.parametrize(("start", "instead", "said"), BROKEN)
def test_a_spoilt_lock_is_refused_with_its_line(tmp_path: Path, start: str, instead: str, said: str) -> None:
    lines = SCIENCE.shipped_lock.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(start))
    lines[at] = instead
    path = tmp_path / "lab.lock"
    path.write_text("\n".join(lines))
    with pytest.raises(BadLock) as caught:
        lock.read_lock(path)
    assert said in caught.value.message
    assert caught.value.message.startswith(f"{path}:{at + 1}:") or instead.startswith("hashes")


def test_a_newer_lock_asks_for_a_newer_ailab(tmp_path: Path) -> None:
    path = tmp_path / "lab.lock"
    path.write_text('format = 99\nstack = "science"\nsomething = "new"\n')
    with pytest.raises(BadLock, match="newer ailab") as caught:
        lock.read_lock(path)
    assert "Update" in caught.value.remedy


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_lock_with_any_line_spoilt_is_read_or_refused_but_never_crashes(data: st.DataObject) -> None:
    import tempfile

    lines = SCIENCE.shipped_lock.read_text().splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = data.draw(st.one_of(st.just(""), st.text(max_size=40), st.just(lines[at][: len(lines[at]) // 2])))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lab.lock")
        path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
        try:
            found = lock.read_lock(path)
        except BadLock:
            return
    assert found is not None and "\n--index" not in found.requirements()


def test_markers_are_made_short_and_mean_the_same() -> None:
    pythons, machines = ["3.8", "3.9", "3.10"], ["x86_64", "aarch64"]
    linux = "((platform_machine == 'aarch64' and sys_platform == 'linux') or (platform_machine == 'x86_64' and sys_platform == 'linux'))"  # noqa: E501  as uv writes it
    assert simplify(f"python_full_version < '3.11' and {linux}", pythons, machines) == ""
    assert simplify(f"python_full_version < '3.9' and {linux}", pythons, machines) == "python_version == '3.8'"
    assert simplify("implementation_name == 'pypy'", pythons, machines) is None
    assert simplify("platform_machine == 'x86_64' and python_version < '3.10'", pythons, machines) == (
        "(python_version == '3.8' or python_version == '3.9') and platform_machine == 'x86_64'"
    )
    patch = "python_full_version <= '3.9'"
    assert simplify(patch, pythons, machines) == patch


def test_cuda_libraries_are_a_group_of_their_own() -> None:
    stack = load_stack("tensorflow-2.9")
    shipped = lock.read_lock(stack.shipped_lock)
    assert shipped is not None and stack.cuda is not None
    assert {f"{one.name}=={one.version}" for one in shipped.cuda} == set(stack.cuda.packages)
    assert not {one.name for one in shipped.packages} & {one.name for one in shipped.cuda}
    for machine, count in (("x86_64", len(shipped.cuda)), ("aarch64", 0)):
        assert sum(Marker(one.marker).evaluate(target("3.10.9", machine)) for one in shipped.cuda) == count
    assert all(one.hashes for one in shipped.cuda)
    with_cuda = shipped.with_cuda()
    assert set(with_cuda.packages) == {*shipped.packages, *shipped.cuda} and not with_cuda.cuda
    assert with_cuda.digest() != shipped.digest(), "a generation's name says whether the group is in it"
    science = lock.read_lock(SCIENCE.shipped_lock)
    assert science is not None and science.with_cuda() == science and "[[cuda]]" not in science.text()


def test_a_package_s_own_pin_of_a_cuda_library_gives_way_where_there_is_a_gpu() -> None:
    other = lock.Package("nvidia-cudnn-cu11", "8.5.0.96", "", ("sha256:" + "0" * 64,))
    ours = replace(other, version="8.6.0.163")
    mixed = lock.Lock("tensorflow-2.9", "", (), (other,), (ours,))
    assert mixed.with_cuda().packages == (ours,) and "8.5.0.96" in mixed.requirements()


def test_a_spoilt_cuda_entry_is_refused_with_its_line(tmp_path: Path) -> None:
    lines = load_stack("tensorflow-2.9").shipped_lock.read_text().splitlines()
    at = [number for number, line in enumerate(lines) if line == "[[cuda]]"][2] + 2
    lines[at] = "version = 3"
    (tmp_path / "lab.lock").write_text("\n".join(lines))
    with pytest.raises(BadLock, match=rf":{at + 1}: cuda\.2\.version"):
        lock.read_lock(tmp_path / "lab.lock")


def test_a_stack_without_a_tested_lock_gets_its_cuda_group_resolved(tmp_path: Path, uv: Uv) -> None:
    small = ["nvidia-cuda-nvcc-cu11==11.8.89", "nvidia-cuda-cupti-cu11==11.8.87"]
    group = Cuda(version="11.8", driver="450", libraries=[], packages=small)
    ours = {"name": "ours", "file": tmp_path / "ours.toml", "packages": ["six"], "cuda": group}
    stack = SCIENCE.model_copy(update=ours)
    python = interpreters.find(SCIENCE, "", uv).program
    made, _written = lock.ensure_lock(tmp_path / "lab.lock", stack, [], uv, python)
    assert sorted(f"{one.name}=={one.version}" for one in made.cuda) == sorted(small)
    assert {one.marker for one in made.cuda} == {"platform_machine == 'x86_64'"}
    assert [one.name for one in made.packages] == ["six"]
    assert lock.read_lock(tmp_path / "lab.lock") == made


IMAGE = Image(
    "sha256:" + "a" * 64,
    {"libgl1": "1.6.0-1", "libstdc++6": "12.2.0-14+deb12u1"},
    "host:5000/debian:12",
    ("tini",),
    {"tini": "0.19.0-1"},
)


def test_what_images_are_made_on_is_kept_by_every_change_of_the_packages(tmp_path: Path, uv: Uv) -> None:
    shipped = lock.read_lock(SCIENCE.shipped_lock)
    assert shipped is not None
    path = tmp_path / "lab.lock"
    lock.write_lock(path, replace(shipped, inputs="older", image=IMAGE))
    assert '[image.apt]\n"libgl1" = "1.6.0-1"\n"libstdc++6" = ' in path.read_text()
    python = interpreters.find(SCIENCE, "", uv).program
    for asked in ([], ["humanize"]):
        made, written = lock.ensure_lock(path, SCIENCE, asked, uv, python)
        assert written and made.image == IMAGE and lock.read_lock(path) == made
    newer = upgrade.upgraded(made, ["humanize"], SCIENCE, ["humanize"], uv, python)
    assert newer.image == IMAGE and newer.digest() == replace(newer, image=None).digest(), "it names no generation"


@pytest.mark.parametrize(
    ("table", "line", "key"),
    [
        ('[image]\nbase = "debian:12"', 7, "image.base"),
        ("[image]\n", 6, "image.base"),
        (f'[image]\nbase = "{IMAGE.base}"\napt = {{ "lib gl" = "1" }}', 8, "image.apt.lib gl"),
        (f'[image]\nbase = "{IMAGE.base}"\n[image.apt]\nlibgl1 = "1 ; rm"', 9, "image.apt.libgl1"),
        (f'[image]\nbase = "{IMAGE.base}"\nbsae = 1', 8, "image.bsae"),
    ],
)
def test_a_spoilt_image_is_refused_with_its_line(tmp_path: Path, table: str, line: int, key: str) -> None:
    text = SCIENCE.shipped_lock.read_text()
    (tmp_path / "lab.lock").write_text(text.replace("\n\n[[package]]", f"\n{table}\n[[package]]", 1))
    with pytest.raises(BadLock, match=rf":{line}: {re.escape(key)}"):
        lock.read_lock(tmp_path / "lab.lock")
