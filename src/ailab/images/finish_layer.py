"""Run in an image's build, by any Python from 3.8 on: compiles what a layer has installed; evens out times and modes.

    python -I -B finish_layer.py FOLDER...

Packages' own tests, a fifth of all modules, stay as they are: a lab does not import them, and may, all the same.

A .pyc names its source by hash and is not checked (PEP 552), so that it holds whatever times a tool gives to files. The
same code gives the same bytes: marshal marks an object that is referred to more than once, which interpreters' caches
may do or not; so we refer to every one. The items of a constant set come in the order of their hashes: None's is
its address before Python 3.12; so we write sets ourselves.
"""

from __future__ import annotations

import gc
import importlib.util
import marshal
import operator
import os
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import CodeType
from typing import Any

# 2020-01-01: after the epoch of zip files, before all that is built.
TIME = 1577836800
TESTS = "tests"
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
CACHE = "__pycache__"
COMPILED = f".{sys.implementation.cache_tag}.pyc"
STAND_IN = b"ailab: constant set %06d"
# Of a code object, what is made when it is asked for.
CODE_MADE_ANEW = ("co_lnotab", "co_lines", "co_positions", "co_branches")
# Constants that are made of others.
HOLDERS = frozenset({CodeType, tuple, frozenset})


def unfinished(folder: str) -> list[str]:
    """The folders in which something has come or gone, or in whose bytecode, since they were evened out, and those that
    have none yet; sorted."""
    found = set()
    for parent, folders, names in os.walk(folder):
        if not is_even(parent):
            found.add(parent)
            if os.path.basename(parent) == CACHE:
                found.add(os.path.dirname(parent))
        elif CACHE not in folders and not is_of_tests(parent) and any(name.endswith(".py") for name in names):
            found.add(parent)
    return sorted(found)


def is_of_tests(folder: str) -> bool:
    return TESTS in folder.split(os.sep)


def sources(folder: str) -> Iterator[str]:
    """The modules directly in a folder that are to have a .pyc, and have none."""
    if is_of_tests(folder):
        return
    try:
        compiled = set(os.listdir(os.path.join(folder, CACHE)))
    except FileNotFoundError:
        compiled = set()
    for name in sorted(os.listdir(folder)):
        if name.endswith(".py") and name[:-3] + COMPILED not in compiled:
            yield os.path.join(folder, name)


def alike(paths: list[str]) -> list[list[str]]:
    """The modules in groups, as files of one name and size: tools bring the same packages, each into its own folder."""
    groups: dict[tuple[str, int], list[str]] = {}
    for path in paths:
        groups.setdefault((os.path.basename(path), os.lstat(path).st_size), []).append(path)
    return list(groups.values())


def compile_all(group: list[str]) -> None:
    """Write the .pyc of each module, compiling the same text once: the name of its file, which is in it, is replaced by
    whoever imports it (`importlib`, `_fix_co_filename`). A file that is no Python of this version is left alone. Each
    appears whole: others may be running the same Python."""
    made: dict[bytes, bytes] = {}
    for source in group:
        target = importlib.util.cache_from_source(source)
        try:
            with open(source, "rb") as file:
                text = file.read()
            if text not in made:
                code = compile(text, source, "exec", dont_inherit=True, optimize=0)
                header = importlib.util.MAGIC_NUMBER + (0b01).to_bytes(4, "little") + importlib.util.source_hash(text)
                made[text] = header + written(code)
        except (SyntaxError, ValueError, RecursionError, OSError):
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(f"{target}.new", "wb") as file:
            file.write(made[text])
        os.replace(f"{target}.new", target)


def written(code: CodeType) -> bytes:
    """The code as marshal writes it while all that it is made of is referred to twice, its sets in an order of ours."""
    sets: list[frozenset[Any]] = []
    code = without_sets(code, sets)
    held = parts(code)
    data = marshal.dumps(code)
    held.clear()
    for number, items in enumerate(sets):
        # Bytes and a set look alike: a type, which may carry the mark of an object that is referred to, a length, and
        # what is in it; and both are one object for who counts them.
        stand_in = marshal.dumps(STAND_IN % number, 2)[1:]
        content = len(items).to_bytes(4, "little") + b"".join(sorted(marshal.dumps(item, 2) for item in items))
        for mark in (0, 0x80):
            data = data.replace(bytes([ord("s") | mark]) + stand_in, bytes([ord(">") | mark]) + content)
    return data


def without_sets(value: Any, sets: list[frozenset[Any]]) -> Any:
    """A constant with stand-ins for its sets, which are put into `sets`; the very same one where it has none."""
    if isinstance(value, CodeType):
        constants = without_sets(value.co_consts, sets)
        return value if constants is value.co_consts else value.replace(co_consts=constants)
    if isinstance(value, frozenset):
        sets.append(value)
        return STAND_IN % (len(sets) - 1)
    if isinstance(value, tuple) and not HOLDERS.isdisjoint(map(type, value)):
        items = tuple([without_sets(item, sets) for item in value])
        return value if all(map(operator.is_, items, value)) else items
    return value


def _objects(code: CodeType) -> list[str]:
    """The attributes of a code object that marshal writes as objects, and may refer to: its numbers are none."""
    names = [name for name in dir(code) if name.startswith("co_") and name not in CODE_MADE_ANEW]
    return [name for name in names if not isinstance(getattr(code, name), int)]


of_code = operator.attrgetter(*_objects(is_of_tests.__code__))


def parts(code: CodeType) -> list[Any]:
    """The code and all that it is made of, down to the last constant."""
    found: list[Any] = [code]
    holders: list[Any] = [code]
    for value in holders:  # which grows meanwhile
        tuples = [value]
        if isinstance(value, CodeType):
            objects = of_code(value)
            found.append(objects)
            tuples = [part for part in objects if isinstance(part, tuple)]
        for items in tuples:
            found += items
            holders += [item for item in items if type(item) in HOLDERS]
    return found


def is_even(folder: str) -> bool:
    """Whether nothing has come or gone in a folder, which gives it a new time, since it was evened out."""
    seen = os.lstat(folder)
    return seen.st_mtime == TIME and not seen.st_mode & OTHERS_WRITE


def even_out(folder: str) -> None:
    """One time for a folder and the files in it, and nothing that any account may write (uv leaves such a lock file
    in an environment). What is so already is not touched: touching it would copy it into this layer."""
    for path in [*(entry.path for entry in os.scandir(folder) if not entry.is_dir(follow_symlinks=False)), folder]:
        seen = os.lstat(path)
        if not stat.S_ISLNK(seen.st_mode) and seen.st_mode & OTHERS_WRITE:
            os.chmod(path, stat.S_IMODE(seen.st_mode) & ~OTHERS_WRITE)
        if seen.st_mtime != TIME:
            os.utime(path, (TIME, TIME), follow_symlinks=False)


def main(folders: list[str]) -> None:
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of a constant set's items is written down too.
        os.execve(sys.executable, [sys.executable, "-B", *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    parts = [part for folder in folders for part in unfinished(folder)]
    found = [path for part in parts for path in sources(part)]
    # What compiles makes no circles; to look for some takes a twentieth of its time.
    gc.disable()
    with ProcessPoolExecutor() as pool:
        for _ in pool.map(compile_all, alike(found), chunksize=64):
            pass
    # Those of folders in which something was compiled may be new.
    caches = {os.path.dirname(importlib.util.cache_from_source(path)) for path in found}
    for part in {*parts, *filter(os.path.isdir, caches)}:
        even_out(part)
    for folder in folders:
        for parent in Path(folder).parents:
            os.utime(parent, (TIME, TIME))


if __name__ == "__main__":
    main(sys.argv[1:])
