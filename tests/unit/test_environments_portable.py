"""A copied Python runs where it is put, with its own libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ailab.environments import portable

BASE = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
LOOK = """
import ctypes, json, sqlite3, ssl, sys
maps = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
print(json.dumps([sys.prefix, sys.modules["os"].__file__, sorted(maps)]))
"""


def looked(program: Path) -> tuple[str, str, list[str]]:
    done = subprocess.run([program, "-I", "-c", LOOK], env={}, capture_output=True, text=True, timeout=30, check=True)
    prefix, module, maps = json.loads(done.stdout)
    return prefix, module, maps


def test_a_copy_stands_on_its_own_but_for_glibc(tmp_path: Path) -> None:
    placed = portable.copy(BASE, tmp_path / "python", libraries=True)
    prefix, module, maps = looked(placed)
    assert prefix == str(tmp_path / "python") and module.startswith(prefix)
    own = {Path(path).name for path in maps if path.startswith(prefix)}
    others = {Path(path).name for path in maps if not path.startswith(prefix)}
    assert any(name.startswith("libsqlite3") for name in own) and any(name.startswith("libssl") for name in own)
    assert {name for name in others if not portable._SYSTEMS.fullmatch(name)} == set()
    assert portable.origin(tmp_path / "python") == (BASE.resolve().parent.parent, f"3.{sys.version_info.minor}")


def test_a_copy_of_a_copy_knows_where_it_came_from(tmp_path: Path) -> None:
    first = portable.copy(BASE, tmp_path / "one")
    portable.copy(first, tmp_path / "two")
    assert portable.origin(tmp_path / "two") == portable.origin(tmp_path / "one")
    assert looked(tmp_path / "two" / "bin" / BASE.name)[0] == str(tmp_path / "two")


def test_a_copy_for_who_compiles_it_anew_has_no_bytecode(tmp_path: Path) -> None:
    assert any(portable.copy(BASE, tmp_path / "one").parents[1].rglob("*.pyc"))
    assert not any(portable.copy(BASE, tmp_path / "two", compiled=False).parents[1].rglob("*.pyc"))
