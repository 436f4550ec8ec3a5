"""Root's work in folders that other accounts may write: by file descriptors, never through a link of theirs."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ailab.errors import UsageError
from ailab.i18n import _

# How much of a lab `hand_over` looks at: `up` does not wait for the walk of a data set.
MOST_ENTRIES = 20_000
_DEEPEST = 32
_MOST_LINKS = 40
_PROTECTED_HARDLINKS = Path("/proc/sys/fs/protected_hardlinks")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Opens nothing: a descriptor of what has this name, whatever that is.
_NAMED = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def real_path(path: Path) -> Path:
    """As `Path.resolve`, for root: raises `UsageError` at a link that another account has made and may change."""
    with _reached(path, make=False) as (folder, rest):
        return _path_of(folder).joinpath(*rest)


@contextmanager
def opened(path: Path, *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder at `path`, reached as `real_path` reaches it; `make` makes what is missing."""
    with _reached(path, make=make) as (folder, rest):
        if rest:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        descriptor = os.open(".", _FOLDER, dir_fd=folder)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def _reached(path: Path, *, make: bool) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The last folder on the way to `path` that is there, and the names that are not. Nobody can lead the walk
    elsewhere meanwhile: each name is opened in the folder that is open already."""
    rest = deque(path.absolute().parts[1:])
    links = 0
    with contextlib.ExitStack() as held:
        here = _keep(held, os.open("/", _NAMED))
        while rest:
            try:
                there = os.open(rest[0], _NAMED, dir_fd=here)
            except FileNotFoundError:
                if not make:
                    break
                with contextlib.suppress(FileExistsError):
                    os.mkdir(rest[0], 0o755, dir_fd=here)
                continue
            there, name = _keep(held, there), rest.popleft()
            seen = os.fstat(there)
            if stat.S_ISLNK(seen.st_mode):
                links += 1
                _refuse_foreign(path, here, name, seen, links)
                target = Path(os.readlink("", dir_fd=there))
                rest.extendleft(reversed(target.parts[1:] if target.is_absolute() else target.parts))
                here = _keep(held, os.open("/", _NAMED)) if target.is_absolute() else here
            elif stat.S_ISDIR(seen.st_mode):
                here = there
            else:
                raise UsageError(
                    _("{path} is not a folder.").format(path=_path_of(here) / name), remedy=_("Name another folder.")
                )
        yield here, tuple(rest)


def _keep(held: contextlib.ExitStack, descriptor: int) -> int:
    held.callback(os.close, descriptor)
    return descriptor


def _refuse_foreign(path: Path, folder: int, name: str, seen: os.stat_result, links: int) -> None:
    if seen.st_uid == 0 and links <= _MOST_LINKS:
        return
    link = _path_of(folder) / name
    raise UsageError(
        _("{link}, on the way to {path}, is a link of the account {owner}: root does not follow it.").format(
            link=link, path=path, owner=_name(seen.st_uid)
        ),
        remedy=_("Name the folder that it leads to."),
    )


def _path_of(folder: int) -> Path:
    return Path(f"/proc/self/fd/{folder}").readlink()


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def hand_over(folder: int, names: Sequence[str], account: pwd.struct_passwd, *, most: int = MOST_ENTRIES) -> bool:
    """Give the account the files and folders of root's that are called `names` in the open `folder`, or are below them.
    Whether all of them were looked at: the walk ends after `most` entries, with the deepest.

    The account may change the tree meanwhile, and may have put into it what it was not given. So no link is followed,
    nothing is looked at that is mounted there, and of files only those are handed over that have no other name: a hard
    link may be the name of a file of the system's. What has vanished is passed over.
    """
    waiting: deque[tuple[tuple[str, ...], str]] = deque()

    def look(inside: int, parts: tuple[str, ...], seen: os.stat_result, mount: str) -> None:
        if stat.S_ISDIR(seen.st_mode) and len(parts) < _DEEPEST:
            waiting.append((parts, mount))
        elif stat.S_ISREG(seen.st_mode) and seen.st_uid == 0:
            _give(inside, parts[-1], account)

    for name in names:
        with contextlib.suppress(OSError):
            # Each of them may itself be a mount.
            look(folder, (name,), os.stat(name, dir_fd=folder, follow_symlinks=False), "")
    while waiting:
        parts, mount = waiting.popleft()
        with contextlib.suppress(OSError), _below(folder, parts) as inner:
            here = _mount(inner)
            if mount and here != mount:
                continue
            if os.fstat(inner).st_uid == 0:
                os.fchown(inner, account.pw_uid, account.pw_gid)
            with os.scandir(inner) as entries:
                for entry in entries:
                    most -= 1
                    if most < 0:
                        return False
                    with contextlib.suppress(OSError):
                        look(inner, (*parts, entry.name), entry.stat(follow_symlinks=False), here)
    return True


def _give(folder: int, name: str, account: pwd.struct_passwd) -> None:
    file = os.open(name, _NAMED, dir_fd=folder)
    try:
        seen = os.fstat(file)
        # One look at the name tells both: it is this file's, and it is the only one. A count from the descriptor alone
        # could be that of a system file whose link in here has just been removed.
        now = os.stat(name, dir_fd=folder, follow_symlinks=False)
        is_only = os.path.samestat(seen, now) and now.st_nlink == 1
        is_roots = stat.S_ISREG(seen.st_mode) and seen.st_uid == 0
        if is_roots and is_only and _may_be_given(seen) and _mount(file) == _mount(folder):
            os.chown(f"/proc/self/fd/{file}", account.pw_uid, account.pw_gid)
    finally:
        os.close(file)


def _may_be_given(seen: os.stat_result) -> bool:
    """Where the kernel lets accounts link files that are not theirs, a file's first name may have gone since: only one
    that everybody may read is then given away."""
    return bool(seen.st_mode & stat.S_IROTH) or _PROTECTED_HARDLINKS.read_text().strip() != "0"


@contextmanager
def _below(folder: int, parts: tuple[str, ...]) -> Iterator[int]:
    """The folder `parts` below the open `folder`, each opened in the one before."""
    here = os.open(parts[0], _FOLDER, dir_fd=folder)
    try:
        for part in parts[1:]:
            there = os.open(part, _FOLDER, dir_fd=here)
            os.close(here)
            here = there
        yield here
    finally:
        os.close(here)


def _mount(descriptor: int) -> str:
    """The id of the mount that an open file is on: see proc(5), fdinfo."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines()
    return next((line for line in lines if line.startswith("mnt_id:")), "")
