"""Which files of a folder are code: what a snapshot keeps, and what it leaves out and says so."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ailab.command import CommandFailed
from ailab.jobs import git_state
from ailab.jobs.beneath import Beneath
from ailab.runtimes.base import Stored

# As git writes them: a file, one that can be run, a link.
FILE, PROGRAM, LINK = "100644", "100755", "120000"
_NAMES_TOLD = 5
_CACHES = {"__pycache__", "node_modules"}
_CHECKPOINTS = {"checkpoints", "checkpoint", "ckpt", "ckpts", "mlruns", "wandb", "lightning_logs"}
_SAVED = ("*.ckpt", "*.ckpt.*", "*.ckpt-*", "*.h5", "*.hdf5", "*.keras", "*.pt", "*.pth", "*.safetensors", "*.onnx",
          "*.tflite", "saved_model.pb", "events.out.tfevents.*")  # fmt: skip
_SECRET_FOLDERS = {".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".ailab"}
_SECRETS = (".env", ".env.*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk",
            "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", ".netrc", "_netrc", ".pgpass", ".pypirc", ".npmrc",
            ".git-credentials", ".htpasswd", ".dockercfg", "credentials", "credentials.json", "client_secret*.json",
            "service[-_]account*.json", "secrets.*", "kaggle.json", "*.ovpn")  # fmt: skip
_NO_SECRETS = (".env.example", ".env.sample", ".env.template", "secrets.py")
_SOURCE = {".py", ".pyi", ".pyx", ".pxd", ".ipynb", ".sh", ".c", ".cc", ".cpp", ".h", ".hpp", ".cu", ".cuh", ".rs",
           ".r", ".jl", ".toml", ".cfg", ".ini", ".yaml", ".yml"}  # fmt: skip


def _one_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(one) for one in patterns))


_IS_SAVED, _IS_SECRET, _IS_NO_SECRET = _one_of(_SAVED), _one_of(_SECRETS), _one_of(_NO_SECRETS)


class Why(StrEnum):
    """Why something is left out. `many`: the code is over `Bounds.files` or `Bounds.bytes` without it, or has not been
    looked into for `Bounds.seen`; `ignored`: by git; `environment`: a virtual one."""

    secret = "secret"  # noqa: S105
    large = "large"
    many = "many"
    special = "special"
    unreadable = "unreadable"
    hidden = "hidden"
    ignored = "ignored"
    environment = "environment"
    cache = "cache"
    checkpoint = "checkpoint"


@dataclass(frozen=True)
class LeftOut(Stored):
    """What a snapshot has not: `count` files or whole folders, of which `names` are the first few."""

    why: str
    count: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bounds:
    """The most that a snapshot keeps: bytes of a file, files and links, bytes of all; and the most names that are read
    in a folder that is in no git work tree."""

    file_bytes: int = 10_000_000
    files: int = 5000
    bytes: int = 200_000_000
    seen: int = 20_000


@dataclass(frozen=True)
class Entry:
    """A file to keep, its size in bytes, or a link and its target."""

    path: str
    mode: str
    size: int = 0
    target: str = ""


@dataclass(frozen=True)
class Code:
    """The code below a folder, sorted by path. `problem` is why git could not be asked though there is a work tree."""

    entries: tuple[Entry, ...]
    git: git_state.Git | None = None
    problem: str = ""


class Tally:
    """Counts what is left out."""

    def __init__(self) -> None:
        self._names: dict[Why, dict[str, None]] = {}

    def add(self, why: Why, name: str) -> None:
        self._names.setdefault(why, {})[name] = None

    def listed(self) -> tuple[LeftOut, ...]:
        """In the order of `Why`; names as they can be shown and stored, whatever their bytes."""
        return tuple(
            LeftOut(why.value, len(names), tuple(showable(name) for name in sorted(names)[:_NAMES_TOLD]))
            for why in Why
            if (names := self._names.get(why))
        )


def showable(name: str) -> str:
    """A file's name as text that can be written anywhere, also one whose bytes are no UTF-8."""
    return os.fsencode(name).decode(errors="replace")


def find(folder: Path, work: Path, tally: Tally, bounds: Bounds) -> Code:
    """The code below `folder`: in a git work tree what git keeps, changed or not, and what is new and not ignored; else
    every file but hidden ones, environments, caches and what training saves. Temporary files are in `work`."""
    tree, problem = None, ""
    try:
        tree = git_state.look(folder, work)
    except CommandFailed as error:
        problem = error.message
    except OSError as error:
        problem = str(error)
    if tree is not None and (tree.tracked or tree.untracked):
        first = frozenset(tree.tracked)
        names = [*tree.tracked, *_wanted(tree.untracked, tally)]
        for name in tree.ignored:
            tally.add(Why.ignored, name)
    else:
        first, names = frozenset(), list(_walked(folder, tally, bounds))
    with Beneath(folder) as beneath:
        found = [entry for name in sorted(set(names)) if (entry := _entry(beneath, name, tally, bounds)) is not None]
    entries = tuple(_within(found, first, tally, bounds))
    return Code(entries, tree.git if tree is not None else None, problem)


def _wanted(paths: Iterable[str], tally: Tally) -> Iterator[str]:
    """Those of git's new files that are written by people: nobody has told git to ignore the others yet."""
    listed = list(paths)
    environments = {path.rpartition("/")[0] for path in listed if path.endswith("/pyvenv.cfg")}
    for path in listed:
        names = path.split("/")
        for depth, name in enumerate(names, 1):
            start = "/".join(names[:depth])
            why = Why.environment if start in environments else uninteresting(name)
            if why:
                tally.add(why, start if depth == len(names) else f"{start}/")
                break
        else:
            yield path


def uninteresting(name: str) -> Why | None:
    """Why a file or folder of that name is made by a program, not written; None for every other."""
    if name in _CACHES or name.endswith((".pyc", ".egg-info")):
        return Why.cache
    if name in _CHECKPOINTS or _IS_SAVED.match(name):
        return Why.checkpoint
    return None


def is_secret(path: str) -> bool:
    """Whether the path looks like a key's, a password file's or a lab's own state."""
    *folders, name = path.lower().split("/")
    if _SECRET_FOLDERS & {*folders, name}:
        return True
    return _IS_SECRET.match(name) is not None and _IS_NO_SECRET.match(name) is None


def _walked(folder: Path, tally: Tally, bounds: Bounds) -> Iterator[str]:
    """The files below a folder that git knows nothing of, those nearest to the top first."""
    waiting, seen = [""], 0
    for above in waiting:  # grows while it is gone through
        if seen >= bounds.seen:
            tally.add(Why.many, above)
            continue
        try:
            entries = sorted(os.scandir(folder / above), key=lambda one: one.name)
        except OSError:
            tally.add(Why.unreadable, above or ".")
            continue
        seen += len(entries)
        if above and _is_environment({one.name for one in entries}):
            tally.add(Why.environment, above)
            continue
        for entry in entries:
            path = f"{above}{entry.name}"
            is_folder = entry.is_dir(follow_symlinks=False)
            shown = f"{path}/" if is_folder else path
            why = Why.secret if is_secret(path) else _hidden(entry.name) or uninteresting(entry.name)
            if why:
                tally.add(why, shown)
            elif is_folder:
                waiting.append(shown)
            else:
                yield path


def _hidden(name: str) -> Why | None:
    return Why.hidden if name.startswith(".") else None


def _is_environment(names: set[str]) -> bool:
    """By what venv and conda put at the top of one."""
    return "pyvenv.cfg" in names or "conda-meta" in names


def _entry(beneath: Beneath, path: str, tally: Tally, bounds: Bounds) -> Entry | None:
    """The file as it is now; None where it is gone, or left out."""
    if is_secret(path):
        tally.add(Why.secret, path)
        return None
    try:
        seen = beneath.stat(path)
        if stat.S_ISLNK(seen.st_mode):
            return Entry(path, LINK, target=beneath.target(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        tally.add(Why.unreadable, path)
        return None
    if stat.S_ISREG(seen.st_mode) and seen.st_size <= bounds.file_bytes:
        return Entry(path, PROGRAM if seen.st_mode & stat.S_IXUSR else FILE, seen.st_size)
    if not stat.S_ISDIR(seen.st_mode):
        tally.add(Why.large if stat.S_ISREG(seen.st_mode) else Why.special, path)
    return None


def _within(found: list[Entry], first: frozenset[str], tally: Tally, bounds: Bounds) -> list[Entry]:
    """As many as the bounds allow, sorted by path: what git keeps before other files, source before data, what is near
    the top before what is deep in it, small before large."""

    def worth(entry: Entry) -> tuple[bool, bool, int, int, str]:
        source = os.path.splitext(entry.path)[1].lower() in _SOURCE  # noqa: PTH122  a path is text here
        return entry.path not in first, not source, entry.path.count("/"), entry.size, entry.path

    kept: list[Entry] = []
    total = 0
    for entry in sorted(found, key=worth):
        if len(kept) >= bounds.files or total + entry.size > bounds.bytes:
            tally.add(Why.many, entry.path)
        else:
            kept.append(entry)
            total += entry.size
    return sorted(kept, key=lambda entry: entry.path)
