"""lab.lock: every package of an environment by version and hash, for every Python and platform, and no address."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ailab import files
from ailab.environments.lock_file import Image, Package, bad_lock, parse_lock, render_lock
from ailab.environments.markers import simplify
from ailab.environments.uv import Uv
from ailab.environments.uv_errors import DoNotFit
from ailab.errors import AilabError, UsageError
from ailab.i18n import _
from ailab.stacks import CUDA_PLATFORM, Stack

FORMAT = 1
_LARGEST_FILE = 16 * 1024 * 1024
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+?)(?:\s*;\s*(.+?))?(?:\s*\\)?$")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Lock:
    """A whole lock. `inputs` is the digest of what was asked for, so that a changed wish is noticed.

    `cuda` is the group of CUDA libraries, which only a machine with a GPU installs; `image` what container images are
    made on, which no change of the packages touches.
    """

    stack: str
    inputs: str
    asked: tuple[str, ...]
    packages: tuple[Package, ...]
    cuda: tuple[Package, ...] = ()
    image: Image | None = None

    def with_cuda(self) -> Lock:
        """What a machine with a GPU installs: the CUDA group among the packages, in the place of any of its own."""
        group = {package.name for package in self.cuda}
        others = [package for package in self.packages if package.name not in group]
        return replace(self, packages=_sorted([*others, *self.cuda]), cuda=())

    def requirements(self) -> str:
        """The lock as a requirements file with hashes, as pip and uv read it."""
        return "\n".join(package.requirement() for package in self.packages) + "\n"

    def digest(self) -> str:
        return hashlib.sha256(self.requirements().encode()).hexdigest()

    def text(self) -> str:
        """The file. The same lock gives the same bytes."""
        return render_lock(FORMAT, self.stack, self.inputs, self.asked, self.packages, self.cuda, self.image)


def inputs_of(stack: Stack, asked: list[str]) -> str:
    """The digest of everything that a resolution depends on, but for the registry's own state."""
    wish = [FORMAT, stack.name, stack.packages, stack.constraints, stack.pythons, stack.platforms, sorted(asked)]
    wish += [stack.cuda.packages] if stack.cuda is not None else []
    return hashlib.sha256(json.dumps(wish).encode()).hexdigest()[:16]


def read_lock(path: Path) -> Lock | None:
    """The lock at `path`; None when there is none. Raises `UsageError` with the line for one that cannot be read."""
    try:
        data = files.read_regular(path, most=_LARGEST_FILE)
        if len(data) > _LARGEST_FILE:
            raise bad_lock(path, 0, os.strerror(errno.EFBIG))
        text = data.decode("utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise bad_lock(path, 0, error.strerror or str(error)) from None
    except UnicodeDecodeError as error:
        raise bad_lock(path, 0, str(error)) from None
    found = parse_lock(path, text, FORMAT)
    packages, cuda = (tuple(entry.package() for entry in table) for table in (found.package, found.cuda))
    image = found.image.image() if found.image is not None else None
    return Lock(found.stack, found.inputs, tuple(found.asked), packages, cuda, image)


def ensure_lock(
    path: Path,
    stack: Stack,
    asked: list[str],
    uv: Uv,
    interpreter: Path,
    tell: Callable[[str], None] = lambda _text: None,
) -> tuple[Lock, bool]:
    """The lock for a stack and the packages asked for, and whether it had to be written; see `wanted_lock`."""
    known = read_lock(path)
    lock = wanted_lock(known, stack, asked, uv, interpreter, tell)
    if lock is known:
        return lock, False
    write_lock(path, lock)
    return lock, True


def write_lock(path: Path, lock: Lock) -> None:
    files.replace(path, lock.text())


def wanted_lock(
    known: Lock | None, stack: Stack, asked: list[str], uv: Uv, interpreter: Path, tell: Callable[[str], None]
) -> Lock:
    """The lock for a stack and the packages asked for; `known`, the lab's own, where that is for the same wish.

    A lab without packages of its own gets the stack's tested lock; else the packages are resolved around the versions
    that it has (`versions_to_stay`), and these move only when there is no other way; `tell` then says which tested
    versions moved. `interpreter` is any Python of the stack.
    """
    inputs = inputs_of(stack, asked)
    if known is not None and known.inputs == inputs:
        return known
    shipped = read_lock(stack.shipped_lock)
    stay = versions_to_stay(stack, known, shipped)
    image = known.image if known is not None else None
    if shipped is not None and shipped.inputs == inputs and _pins(shipped.packages) <= _pins(stay):
        return replace(shipped, image=image)
    for wish in asked:
        check_wish(wish)
    lock, moved_all = resolve_around(stack, asked, stay, uv, interpreter)
    if moved_all and shipped is not None:
        tell(_("Not the tested versions: {moved}").format(moved=", ".join(moved(shipped, lock))))
    return vouched_for(replace(lock, image=image), uv)


def vouched_for(lock: Lock, uv: Uv) -> Lock:
    """`lock`, refused where a package has no hash: the index in use names none, or one that is no longer safe (MD5)."""
    bare = [package.pin() for package in lock.packages if not package.hashes]
    if bare:
        raise AilabError(
            _("{index} names no SHA-256 of {packages}: nothing would vouch for what is installed.").format(
                index=uv.index or "PyPI", packages=", ".join(bare)
            ),
            remedy=_(
                "Have it name them (pypiserver: --hash-algo sha256), or lock with another index, as PyPI. Installing"
                " works with this one too, once lab.lock is made."
            ),
        )
    return lock


def versions_to_stay(stack: Stack, known: Lock | None, shipped: Lock | None) -> tuple[Package, ...]:
    """What a new resolution has no reason to move: the lab's own versions; after a change of the stack, the tested ones
    before these."""
    tested = shipped.packages if shipped is not None else ()
    if known is None or known.stack != stack.name:
        return tested
    if known.inputs == inputs_of(stack, list(known.asked)):
        return known.packages
    names = {package.name for package in tested}
    return (*tested, *(package for package in known.packages if package.name not in names))


def _pins(packages: Iterable[Package]) -> set[str]:
    return {package.pin() for package in packages}


def check_wish(wish: str) -> None:
    """Refuse what a lock without addresses cannot hold: anything but a package by name."""
    from packaging.requirements import InvalidRequirement, Requirement

    remedy = _('Write it as pip names it: packages = ["opencv-python-headless", "xgboost<3"]')
    try:
        parsed = Requirement(wish)
    except InvalidRequirement:
        message = _("[environment] packages: {wish} is not a package by name.").format(wish=repr(wish))
        raise UsageError(message, remedy=remedy) from None
    if parsed.url:
        message = _("[environment] packages: {wish} names an address; a lock holds none.").format(wish=repr(wish))
        raise UsageError(message, remedy=_("Put it on an index of your own and set [mirrors] pypi to that."))


def resolve_around(
    stack: Stack, asked: list[str], stay: Sequence[Package], uv: Uv, interpreter: Path
) -> tuple[Lock, bool]:
    """The lock with all of `stay` where it was; else with as much of it as can be, and True. Raises `DoNotFit`."""

    def resolved(wishes: list[str], kept: Sequence[str], preferred: Sequence[Package]) -> Lock:
        return with_known_hashes(resolve(stack, wishes, list(kept), uv, interpreter, preferred), stay)

    if stay:
        try:
            return resolved(asked, [package.pin() for package in stay], ()), False
        except DoNotFit:
            pass
    try:
        return resolved(asked, (), stay), bool(stay)
    except DoNotFit as error:
        from ailab.environments.conflicts import explained

        raise explained(error, stack, asked, lambda wishes: resolved(wishes, (), stay).packages) from error


def with_known_hashes(lock: Lock, known: Iterable[Package]) -> Lock:
    """The lock with each version's files as they were known: what an index has or lacks today moves nothing."""
    hashes = {(package.name, package.version): package.hashes for package in known}
    packages = (replace(one, hashes=hashes.get((one.name, one.version), one.hashes)) for one in lock.packages)
    return replace(lock, packages=tuple(packages))


def moved(before: Lock, after: Lock) -> list[str]:
    """What is at another version in `after` than in `before`: ["numpy 1.23.5 -> 1.22.4", ...]."""
    versions: list[dict[str, set[str]]] = [{}, {}]
    for lock, found in zip((before, after), versions, strict=True):
        for package in lock.packages:
            found.setdefault(package.name, set()).add(package.version)
    old, new = versions
    return [
        f"{name} {'/'.join(sorted(old[name]))} -> {'/'.join(sorted(new[name]))}"
        for name in sorted(old.keys() & new.keys())
        if old[name] != new[name]
    ]


def resolve(
    stack: Stack, asked: list[str], kept: list[str], uv: Uv, interpreter: Path, preferred: Sequence[Package] = ()
) -> Lock:
    """Resolve for every Python and platform of the stack with `uv lock`; `kept` are pins to stay with, `preferred`
    packages are moved only where they must be. Raises `DoNotFit`."""
    project = _project(stack, [*stack.packages, *asked], [*stack.constraints, *kept])
    packages = _resolved(stack, project, uv, interpreter, preferred)
    cuda = _cuda_group(stack, uv, interpreter)
    return Lock(stack.name, inputs_of(stack, asked), tuple(sorted(asked)), packages, cuda)


def _cuda_group(stack: Stack, uv: Uv, interpreter: Path) -> tuple[Package, ...]:
    """The stack's CUDA libraries: those of its shipped lock, else resolved.

    On their own, so that a lab's packages neither move them nor are refused for them: one that pins other versions of
    the same libraries can be locked, and only where there is a GPU does it get the stack's.
    """
    if stack.cuda is None:
        return ()
    shipped = read_lock(stack.shipped_lock)
    if shipped is not None and {f"{one.name}=={one.version}" for one in shipped.cuda} >= set(stack.cuda.packages):
        return shipped.cuda
    wanted = [f"{package} ; platform_machine == '{CUDA_PLATFORM}'" for package in stack.cuda.packages]
    return _resolved(stack, _project(stack, wanted, []), uv, interpreter)


def _resolved(
    stack: Stack, project: str, uv: Uv, interpreter: Path, preferred: Sequence[Package] = ()
) -> tuple[Package, ...]:
    """What uv resolves a project to, with markers that are as short as the stack allows."""
    with files.work_folder(uv.machine.work) as folder:
        (folder / "pyproject.toml").write_text(project, encoding="utf-8")
        if preferred:
            (folder / "uv.lock").write_text(_preferences(stack, preferred), encoding="utf-8")
        uv.run("lock", "--python", interpreter, cwd=folder)
        words = ("export", "--frozen", "--no-emit-project", "--no-annotate", "--no-header")
        exported = uv.run(*words, "--format", "requirements-txt", "--python", interpreter, cwd=folder)
    packages = parse_requirements(exported)
    simple = (package.at(simplify(package.marker, stack.pythons, stack.platforms)) for package in packages)
    return tuple(package for package in simple if package is not None)


def requires_python(stack: Stack) -> str:
    minors = sorted(int(minor.split(".")[1]) for minor in stack.pythons)
    return f">=3.{minors[0]},<3.{minors[-1] + 1}"


def _preferences(stack: Stack, packages: Sequence[Package]) -> str:
    """An old uv.lock, as far as uv needs it to prefer these versions: names and versions; it does not look where they
    are from."""
    lines = ["version = 1", f"requires-python = {json.dumps(requires_python(stack))}"]
    for package in packages:
        lines += ["", "[[package]]", f"name = {json.dumps(package.name)}", f"version = {json.dumps(package.version)}"]
        lines.append('source = { registry = "." }')
        if package.marker:
            lines.append(f"resolution-markers = [{json.dumps(package.marker)}]")
    return "\n".join(lines) + "\n"


def _project(stack: Stack, dependencies: list[str], constraints: list[str]) -> str:
    where = [f"sys_platform == 'linux' and platform_machine == '{platform}'" for platform in stack.platforms]
    each = [f"{one} and python_version == '{minor}'" for one in where for minor in stack.pythons]
    return f"""[project]
name = "lab"
version = "0"
requires-python = {json.dumps(requires_python(stack))}
dependencies = {json.dumps(dependencies)}
[tool.uv]
package = false
environments = {json.dumps(where)}
required-environments = {json.dumps(each)}
constraint-dependencies = {json.dumps(constraints)}
"""


def parse_requirements(text: str) -> tuple[Package, ...]:
    """The pins of a requirements file with hashes, sorted by name and version."""
    packages: list[Package] = []
    for block in re.split(r"\n(?=\S)", text.strip()):
        pin = _PIN.match(block.splitlines()[0])
        if pin:
            hashes = tuple(sorted(set(_HASH.findall(block))))
            packages.append(Package(pin[1], pin[2], (pin[3] or "").strip(), hashes))
    return _sorted(packages)


def _sorted(packages: list[Package]) -> tuple[Package, ...]:
    return tuple(sorted(packages, key=lambda package: (package.name, package.version, package.marker)))
