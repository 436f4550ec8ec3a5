"""What is different between two jobs' snapshots: what was run, on what, with what, and the code file by file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from ailab.errors import NotFound
from ailab.jobs.code_files import LINK, LeftOut, Why, showable
from ailab.jobs.code_store import CodeStore, Row
from ailab.jobs.fingerprints import Fingerprint, How
from ailab.jobs.snapshots import Snapshot

# Comparing lines takes time by the square of how many differ; and nobody reads more.
TEXT_BYTES = 256 * 1024
TEXT_LINES = 200
TEXT_FILES = 50
_NUMBER = re.compile(r"-\.?\d.*")
# What is left out for these reasons is code or data that may differ without anybody seeing it here.
_TELLING = (Why.large, Why.many, Why.secret, Why.unreadable)


class Kind(StrEnum):
    """What differs, in the order in which it is told."""

    command = "command"
    argument = "argument"
    folder = "folder"
    seed = "seed"
    workers = "workers"
    variable = "variable"
    code = "code"
    git = "git"
    input = "input"
    environment = "environment"
    package = "package"
    gpu = "gpu"
    host = "host"
    ailab = "ailab"


@dataclass(frozen=True)
class Difference:
    """One thing, `before` in the first snapshot and `after` in the second; None: not there at all.

    Of code, these are digests or links' targets, and `text` is a unified diff where both are texts of at most
    `TEXT_BYTES`, for the first `TEXT_FILES` files; without its last `cut` lines where it is longer than `TEXT_LINES`.
    """

    kind: str
    name: str
    before: str | None
    after: str | None
    text: str = ""
    cut: int = 0

    @property
    def change(self) -> str:
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"change": self.change}


@dataclass(frozen=True)
class Differences:
    """All that was found, and what neither snapshot has and so was not compared."""

    found: tuple[Difference, ...]
    not_compared: tuple[LeftOut, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Differences:
        """What `to_json` has made."""
        found = [{key: value for key, value in one.items() if key != "change"} for one in data["differences"]]
        left_out = tuple(LeftOut.from_json(one) for one in data["not_compared"])
        return cls(tuple(Difference(**one) for one in found), left_out)

    def to_json(self) -> dict[str, Any]:
        return {
            "same": not self.found,
            "differences": [one.to_json() for one in self.found],
            "not_compared": [one.to_json() for one in self.not_compared],
        }


def diff(a: Snapshot, b: Snapshot, store: CodeStore) -> Differences:
    """What `b` has otherwise than `a`. Of variables only the names are known: another value is not seen. Where the code
    of one is not kept any more, that it differs is all that is said of it."""
    left_out = {one.names: one for one in (*a.left_out, *b.left_out) if one.why in _TELLING}
    return Differences(tuple(_differences(a, b, store)), tuple(left_out.values()))


def facts(one: Snapshot) -> dict[Kind, Mapping[str, str | None]]:
    """What a job ran, by kind and name, in the order in which it is told. Of the code it is the digest of all of it."""
    return {
        Kind.command: {"": _first(one.command)},
        Kind.argument: options_of(one.command[1:]),
        Kind.folder: {"": one.cwd},
        Kind.seed: {"": _number(one.seed)},
        Kind.workers: {"": f"{one.workers} {one.strategy}"} if one.strategy else {},
        Kind.variable: dict.fromkeys(one.variables, ""),
        Kind.code: {"": one.code or None},
        Kind.git: _git(one),
        Kind.input: {each.path: _shown(each) for each in one.inputs},
        Kind.environment: _environment(one),
        Kind.package: one.packages,
        Kind.gpu: _gpus(one),
        Kind.host: {"": one.host},
        Kind.ailab: {"": one.ailab},
    }


def _differences(a: Snapshot, b: Snapshot, store: CodeStore) -> Iterator[Difference]:
    before, after = facts(a), facts(b)
    for kind in before:
        if kind == Kind.argument:
            yield from _arguments(a.command[1:], b.command[1:])
        elif kind == Kind.code:
            yield from _code(a, b, store)
        else:
            yield from _fields(kind, before[kind], after[kind])


def _fields(kind: Kind, a: Mapping[str, str | None], b: Mapping[str, str | None]) -> Iterator[Difference]:
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            yield Difference(kind.value, name, a.get(name), b.get(name))


def _first(command: Sequence[str]) -> str | None:
    return command[0] if command else None


def _number(seed: int | None) -> str | None:
    return None if seed is None else str(seed)


def _arguments(a: Sequence[str], b: Sequence[str]) -> Iterator[Difference]:
    """Option by option; where that shows nothing, as when only the order is another, the arguments as a whole."""
    if a == b:
        return
    found = list(_fields(Kind.argument, options_of(a), options_of(b)))
    yield from found or [Difference(Kind.argument.value, "", " ".join(a), " ".join(b))]


def options_of(words: Sequence[str]) -> dict[str, str]:
    """`--rate 0.1`, `--rate=0.1` and `-r 0.1` by name, what stands for itself by its place from 1. An option given
    several times has all of its values, in their order."""
    found: dict[str, list[str]] = {}
    place, name = 0, ""
    for word in words:
        if word.startswith("-") and word.strip("-") and not _NUMBER.fullmatch(word):
            name, equals, value = word.partition("=")
            found.setdefault(name, []).extend([value] if equals else [])
            name = "" if equals else name
        elif name:
            found[name].append(word)
            name = ""
        else:
            place += 1
            found[str(place)] = [word]
    return {name: " ".join(values) for name, values in found.items()}


def _git(one: Snapshot) -> dict[str, str | None]:
    git = one.git
    if git is None:
        return {}
    dirty = None if git.dirty is None else str(git.dirty).lower()
    known: dict[str, str | None] = {"commit": git.commit, "branch": git.branch, "remote": git.remote, "dirty": dirty}
    known |= {f"submodule {path}": commit for path, commit in git.submodules.items()}
    return {name: value for name, value in known.items() if value}


def _environment(one: Snapshot) -> dict[str, str | None]:
    known = {"generation": one.generation, "lock": one.lock, "python": one.python}
    return {name: value for name, value in known.items() if value}


def _gpus(one: Snapshot) -> dict[str, str]:
    """How many of each name."""
    return {name: str(one.gpus.count(name)) for name in one.gpus}


def _shown(one: Fingerprint) -> str:
    return one.how if one.how == How.none else f"{one.how} {one.digest} files={one.files} bytes={one.bytes}"


def _code(a: Snapshot, b: Snapshot, store: CodeStore) -> Iterator[Difference]:
    if a.code == b.code:
        return
    try:
        before = {row.path: row for row in store.tree(a.code)}
        after = {row.path: row for row in store.tree(b.code)}
    except NotFound:
        yield Difference(Kind.code.value, "", a.code or None, b.code or None)
        return
    texts = 0
    for path in sorted(before.keys() | after.keys()):
        one, other = before.get(path), after.get(path)
        if one == other:
            continue
        text, cut = "", 0
        if one is not None and other is not None and texts < TEXT_FILES:
            text, cut = _unified(one, other, store)
            texts += bool(text)
        yield Difference(Kind.code.value, showable(path), _content(one), _content(other), text, cut)


def _content(row: Row | None) -> str | None:
    """What tells a file from another: the digest, with its mode where that is not the usual one."""
    if row is None:
        return None
    if row.mode == LINK:
        return f"-> {showable(row.content)}"
    return row.content if row.mode == "100644" else f"{row.content} {row.mode}"


def _unified(one: Row, other: Row, store: CodeStore) -> tuple[str, int]:
    """The diff, and how many lines of it are left out; empty where there is nothing to compare line by line."""
    before, after = _lines(one, store), _lines(other, store)
    if before is None or after is None:
        return "", 0
    lines = list(difflib.unified_diff(before, after, "a", "b", lineterm=""))[2:]
    return "\n".join(lines[:TEXT_LINES]), max(0, len(lines) - TEXT_LINES)


def _lines(row: Row, store: CodeStore) -> list[str] | None:
    """The lines of a text; None of what is none, is larger than `TEXT_BYTES`, or is not kept any more."""
    if row.mode == LINK:
        return None
    try:
        content = store.read(row.content)
    except NotFound:
        return None
    if len(content) > TEXT_BYTES or b"\0" in content:
        return None
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        return None
    # As diff says it, so that a last line that is not ended differs from one that is.
    return [*lines, "\\ No newline at end of file"] if lines[-1] else lines[:-1]
