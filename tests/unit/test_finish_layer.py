"""Bytecode as an image has it: the same bytes each time, and the same code."""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ailab.images import finish_layer

SOURCE = """
def f(x, names={'a': 1}):
    'A function.'
    if x in {None, 'one', 'two', 3, (None, ...)}:
        return [n for n in (1, 2, 'one') if n not in {'x', 'y', None}]
    return lambda y: y in {None, 'one', b'bytes', 2.5}
"""


def test_what_is_written_is_the_code() -> None:
    code = compile(SOURCE, "source.py", "exec", dont_inherit=True)
    again = marshal.loads(finish_layer.written(code))
    assert again == code
    scope: dict[str, object] = {}
    exec(again, scope)
    assert scope["f"](None) == [1, 2, "one"]  # type: ignore[operator]


@pytest.mark.parametrize("module", [os, subprocess, finish_layer])
def test_every_process_writes_the_same(module: object, tmp_path: Path) -> None:
    written = set()
    for run in ("one", "two", "three"):
        folder = tmp_path / "package"
        folder.mkdir(exist_ok=True)
        source = Path(str(module.__file__)).read_text(encoding="utf-8") + SOURCE  # type: ignore[attr-defined]
        (folder / "module.py").write_text(source, encoding="utf-8")
        subprocess.run([sys.executable, "-I", "-B", finish_layer.__file__, folder], check=True, timeout=60)
        compiled = next((folder / "__pycache__").glob("*.pyc"))
        assert compiled.stat().st_mtime == folder.stat().st_mtime == finish_layer.TIME
        written.add(compiled.read_bytes())
        compiled.rename(tmp_path / f"{run}.pyc")
    assert len(written) == 1


def test_a_file_that_is_no_python_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "template.py").write_text("print 'of another age'\n")
    (tmp_path / "gone.py").symlink_to("nowhere.py")
    groups = finish_layer.alike([str(tmp_path / name) for name in ("template.py", "gone.py")])
    for one in groups:
        finish_layer.compile_all(one)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gone.py", "template.py"]


def test_the_same_text_is_compiled_once_and_knows_its_own_file_all_the_same(tmp_path: Path) -> None:
    texts = {"a": "def f(): return f.__code__.co_filename\n", "b": "def g(): return g.__code__.co_filename\n"}
    texts["c"] = texts["a"]
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").write_text(text)
    subprocess.run([sys.executable, "-I", "-B", finish_layer.__file__, tmp_path], check=True, timeout=60)
    compiled = {name: next((tmp_path / name).rglob("*.pyc")).read_bytes() for name in texts}
    assert compiled["a"] == compiled["c"] != compiled["b"]
    (tmp_path / "c/module.py").write_text("raise ImportError\n")  # what is imported is the bytecode
    seen = subprocess.run(
        [sys.executable, "-B", "-c", "import module; print(module.__cached__, module.f())"],
        cwd=tmp_path / "c", capture_output=True, text=True, check=True, timeout=60,
    ).stdout.split()  # fmt: skip
    assert seen == [str(next((tmp_path / "c").rglob("*.pyc"))), str(tmp_path / "c/module.py")]


def test_what_comes_with_the_right_time_is_compiled_but_for_packages_own_tests(tmp_path: Path) -> None:
    for name in ("package", "package/tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").write_text("x = 1\n")
    for path in (tmp_path / "package/tests", tmp_path / "package"):
        os.utime(path, (finish_layer.TIME, finish_layer.TIME))
    subprocess.run([sys.executable, "-I", "-B", finish_layer.__file__, tmp_path], check=True, timeout=60)
    assert [str(path.parent.parent) for path in tmp_path.rglob("*.pyc")] == [str(tmp_path / "package")]


def test_what_is_finished_stays_untouched_and_what_comes_later_is_finished(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "part").mkdir(parents=True)
    for name in ("one.py", "two.part.py", "part/three.py"):
        (package / name).write_text("x = 1\n")

    def finish() -> dict[str, int]:
        subprocess.run([sys.executable, "-I", "-B", finish_layer.__file__, package], check=True, timeout=60)
        # A touched file has a new change time, and would be copied into the layer.
        return {str(path.relative_to(package)): path.stat().st_ctime_ns for path in package.rglob("*")}

    first = finish()
    assert len([name for name in first if name.endswith(".pyc")]) == 3
    assert finish() == first
    (package / "part/four.py").write_text("x = 2\n")
    later = finish()
    assert {name.split(".")[0] for name in later if later[name] != first.get(name)} == {
        "part", "part/__pycache__", "part/four", "part/__pycache__/four",
    }  # fmt: skip
    assert all(path.stat().st_mtime == finish_layer.TIME for path in (package, *package.rglob("*")))
