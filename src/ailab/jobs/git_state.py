"""What git knows of a folder, asked so that nothing runs which the repository's own settings name.

A repository can name programs (`core.fsmonitor`, filters, hooks) that git runs as whoever asks, and who may write to
the folder, as a job in a container may, writes its settings. So git reads the folder's files and the repository's index
and objects, but through a git folder of ours, whose settings are ours: no lock is taken, nothing there is changed, and
a repository that belongs to somebody else ("dubious ownership") needs no trust.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ailab.command import CommandFailed, Finished, redact, run
from ailab.runtimes.base import Stored

SECONDS = 30.0
# An index takes about 100 bytes a file.
_INDEX_BYTES = 256 * 1024 * 1024
_SMALL_BYTES = 1024 * 1024
_PASSED_ON = ("PATH", "HOME", "XDG_CONFIG_HOME", "TMPDIR")
_ALWAYS = ("core.quotePath=true", "core.fsmonitor=false", "core.untrackedCache=false", "core.hooksPath=/dev/null")
# What of the repository's settings decides whether a file counts as changed, and may be what.
_BOOLEAN = ("true", "false")
_TAKEN_OVER: dict[str, tuple[str, ...]] = {
    "core.autocrlf": (*_BOOLEAN, "input"),
    "core.eol": ("lf", "crlf", "native"),
    "core.filemode": _BOOLEAN,
    "core.ignorecase": _BOOLEAN,
    "core.symlinks": _BOOLEAN,
    "core.precomposeunicode": _BOOLEAN,
    "extensions.objectformat": ("sha1", "sha256"),
}
_ASKED = r"^(core|extensions)\.|^remote\..*\.url$|^branch\..*\.remote$"
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_GITLINK = "160000"
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)")
_LETTERS = {b"a": b"\a", b"b": b"\b", b"t": b"\t", b"n": b"\n", b"v": b"\v", b"f": b"\f", b"r": b"\r"}


@dataclass(frozen=True)
class Git(Stored):
    """A work tree's state. `commit` is empty before the first one, `branch` where there is none; `dirty`: something is
    changed or new, or cannot be told (None); `remote` is an address without credentials; `submodules` are those below
    the folder, path -> the commit that is checked out."""

    commit: str = ""
    branch: str = ""
    dirty: bool | None = None
    remote: str = ""
    submodules: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkTree:
    """A folder in a git work tree: which files in it git keeps, and which it would (not ignored ones), those of
    submodules and of repositories inside among them; what is ignored, a folder as a whole. Paths start from the
    folder."""

    git: Git
    tracked: tuple[str, ...]
    untracked: tuple[str, ...]
    ignored: tuple[str, ...]


def look(folder: Path, work: Path) -> WorkTree | None:
    """What git says of `folder`; None where it is in no work tree. Temporary files are in `work`.

    Raises `CommandFailed` where git is not installed, cannot read the repository or takes longer than `SECONDS`, and
    `OSError` where we cannot read it.
    """
    top = next((one for one in (folder, *folder.parents) if os.path.lexists(one / ".git")), None)
    if top is None:
        return None
    git_dir = _git_dir(top)
    common = _common_dir(git_dir)
    settings = _settings(git_dir, top)
    commit = _head(git_dir, top, "rev-parse", "--verify", "--quiet", "HEAD")
    branch = _head(git_dir, top, "symbolic-ref", "--quiet", "--short", "HEAD")
    with tempfile.TemporaryDirectory(dir=work) as name:
        ours = _stand_in(Path(name), git_dir, common, commit, settings)
        git = Git(commit, branch, _is_dirty(ours, top), _remote(settings, branch))
        tracked, links = _tracked(_ask(ours, "ls-files", "--stage", top=top, cwd=folder).stdout)
        listed = ("ls-files", "--others", "--exclude-standard")
        untracked = _paths(_ask(ours, *listed, top=top, cwd=folder).stdout)
        ignored = _paths(_ask(ours, *listed, "--ignored", "--directory", top=top, cwd=folder).stdout)
    tree = WorkTree(git, tracked, tuple(one for one in untracked if not one.endswith("/")), ignored)
    inner = links | {one.rstrip("/"): "" for one in untracked if one.endswith("/")}
    for path, wanted in inner.items():
        tree = _with_inner(tree, folder, path, wanted, work)
    return tree


def without_credentials(address: str) -> str:
    """A remote's address without the name and password, or the token, that it may carry."""
    helper, separator, _rest = address.partition("::")
    if separator and re.fullmatch(r"[\w.+-]+", helper):
        # `ext::` and its like: what follows is for a program, and may be anything.
        return f"{helper}::"
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/@]*@)?([^?#]*)", address)
    if not found:
        return redact(address)
    scheme, login, rest = found.groups()
    # git@ over ssh is no secret, and one does not get in without it.
    kept = f"{login.rstrip('@').partition(':')[0]}@" if login and "ssh" in scheme else ""
    return redact(f"{scheme}{kept}{rest}")


def _environment() -> dict[str, str]:
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return passed | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1"}


def _ask(git_dir: Path, *words: str, top: Path | None = None, cwd: Path, check: bool = True) -> Finished:
    argv: list[str | Path] = ["git", f"--git-dir={git_dir}"]
    if top is not None:
        argv.append(f"--work-tree={top}")
    for setting in _ALWAYS:
        argv += ["-c", setting]
    return run([*argv, *words], timeout=SECONDS, env=_environment(), cwd=cwd, check=check)


def _head(git_dir: Path, top: Path, *words: str) -> str:
    """What HEAD is, empty where it is nothing (status 1)."""
    finished = _ask(git_dir, *words, cwd=top, check=False)
    if finished.status not in (0, 1):
        raise CommandFailed(finished.stderr.strip().partition("\n")[0] or "git", finished=finished)
    return finished.stdout.strip()


def _settings(git_dir: Path, top: Path) -> dict[str, str]:
    """The repository's own settings that we use; status 1 is: there are none."""
    words = ("config", "--no-includes", "--local", "--null", "--get-regexp", _ASKED)
    found: dict[str, str] = {}
    for one in _ask(git_dir, *words, cwd=top, check=False).stdout.split("\0"):
        key, _newline, value = one.partition("\n")
        found[key] = value
    return found


def _stand_in(ours: Path, git_dir: Path, common: Path, commit: str, settings: Mapping[str, str]) -> Path:
    """A git folder that has the repository's commit, index and objects, and none of its settings that run something."""
    (ours / "refs").mkdir()
    (ours / "info").mkdir()
    (ours / "objects" / "info").mkdir(parents=True)
    known = _COMMIT.fullmatch(commit) is not None
    (ours / "HEAD").write_text(f"{commit}\n" if known else "ref: refs/heads/none\n")
    (ours / "objects" / "info" / "alternates").write_bytes(os.fsencode(common.absolute() / "objects") + b"\n")
    (ours / "config").write_text(_config(settings))
    for source in (git_dir / "index", *sorted(git_dir.glob("sharedindex.*"))):
        _copy(source, ours / source.name, _INDEX_BYTES)
    _copy(common / "info" / "exclude", ours / "info" / "exclude", _SMALL_BYTES)
    return ours


def _config(settings: Mapping[str, str]) -> str:
    lines = ["[core]", "repositoryformatversion = 1", "bare = false"]
    for name, allowed in _TAKEN_OVER.items():
        if settings.get(name) in allowed:
            section, _dot, key = name.partition(".")
            lines += [f"[{section}]", f"{key} = {settings[name]}"]
    return "\n".join(lines) + "\n"


def _copy(source: Path, target: Path, limit: int) -> None:
    """With its time: git believes a file's stamps where they are older than the index (see `known_digests`)."""
    try:
        # Before the content: rather too old than too young.
        seen = source.stat()
    except FileNotFoundError:
        return
    content = _content(source, limit)
    if content is not None:
        target.write_bytes(content)
        os.utime(target, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def _content(path: Path, limit: int) -> bytes | None:
    """What is in a regular file; None where there is none. Raises `OSError` for one larger than `limit` bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as source:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode) or seen.st_size > limit:
            raise OSError(f"{path} is not what git writes")
        return source.read()


def _git_dir(top: Path) -> Path:
    """The work tree's git folder: `.git`, or what the file `.git` names (submodules, `git worktree`)."""
    link = top / ".git"
    if link.is_dir():
        return link
    text = os.fsdecode(_content(link, _SMALL_BYTES) or b"")
    return top / text.removeprefix("gitdir:").strip()


def _common_dir(git_dir: Path) -> Path:
    """Where the objects and settings are, which several work trees share."""
    text = os.fsdecode(_content(git_dir / "commondir", _SMALL_BYTES) or b"").strip()
    return git_dir / text if text else git_dir


def _is_dirty(ours: Path, top: Path) -> bool | None:
    words = ("status", "--porcelain", "--untracked-files=normal", "--ignore-submodules=all")
    try:
        return bool(_ask(ours, *words, top=top, cwd=top).stdout)
    except CommandFailed:
        return None


def _remote(settings: Mapping[str, str], branch: str) -> str:
    """The address of the branch's remote, else of origin, else of any."""
    addresses = {key[len("remote.") : -len(".url")]: value for key, value in settings.items() if key.endswith(".url")}
    for name in (settings.get(f"branch.{branch}.remote", ""), "origin", *addresses):
        if name in addresses:
            return without_credentials(addresses[name])
    return ""


def _tracked(output: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The files of `ls-files --stage`, and its submodules with the commit that the index wants."""
    tracked: dict[str, None] = {}
    links: dict[str, str] = {}
    for line in output.split("\n"):
        meta, tab, quoted = line.partition("\t")
        path = _unquoted(quoted)
        if not tab or not _is_inside(path):
            continue
        mode, digest, _stage = meta.split()
        if mode == _GITLINK:
            links[path] = digest
        else:
            tracked[path] = None
    return tuple(tracked), links


def _paths(output: str) -> tuple[str, ...]:
    paths = (_unquoted(line) for line in output.split("\n") if line)
    return tuple(path for path in paths if _is_inside(path.rstrip("/")))


def _is_inside(path: str) -> bool:
    """Whether it is a path below a folder. An index that somebody made by hand may hold any."""
    return not {"", ".", ".."} & set(path.split("/"))


def _unquoted(text: str) -> str:
    """A path as git quotes it where it has other than ASCII letters ("core.quotePath"): so none is lost, whatever its
    encoding."""
    if not text.startswith('"'):
        return text
    return os.fsdecode(_ESCAPE.sub(_letter, text[1:-1].encode()))


def _letter(found: re.Match[bytes]) -> bytes:
    code = found[1]
    return bytes([int(code, 8) & 255]) if len(code) == 3 else _LETTERS.get(code, code)


def _with_inner(tree: WorkTree, folder: Path, path: str, wanted: str, work: Path) -> WorkTree:
    """`tree` with a repository inside: a submodule whose commit should be `wanted`, or one that git knows nothing of.

    A submodule that is not checked out has no files, and adds none.
    """
    inside = folder / path
    if not os.path.lexists(inside / ".git") or inside.resolve() != folder.resolve() / path:
        return tree
    inner = look(inside, work)
    if inner is None:
        return tree
    submodules = tree.git.submodules | {path: inner.git.commit}
    submodules |= {f"{path}/{name}": commit for name, commit in inner.git.submodules.items()}
    moved = bool(wanted) and wanted != inner.git.commit
    return WorkTree(
        replace(tree.git, dirty=_either(tree.git.dirty, inner.git.dirty, moved), submodules=submodules),
        (*tree.tracked, *_below(path, inner.tracked)),
        (*tree.untracked, *_below(path, inner.untracked)),
        (*tree.ignored, *_below(path, inner.ignored)),
    )


def _below(path: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{path}/{name}" for name in names)


def _either(*states: bool | None) -> bool | None:
    if any(states):
        return True
    return None if None in states else False
