"""Stacks: tested knowledge of what makes a framework version work today. Data, ours or a team's, and its loader."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ailab.errors import UsageError
from ailab.i18n import _
from ailab.settings_file import SettingsError, line_of, parse_as, read_text
from ailab.stacks.schema import Bound as Bound
from ailab.stacks.schema import Build as Build
from ailab.stacks.schema import Cuda as Cuda
from ailab.stacks.schema import StackFile

FOLDER = Path(__file__).parent
_PROOFS = Path(__file__).parent
# NVIDIA publishes the CUDA libraries as wheels for this kind of machine.
CUDA_PLATFORM = "x86_64"


class Stack(StackFile):
    """A stack as its file describes it. `file` is that file; the tested lock, and a proof of its own, are beside it."""

    file: Path

    @property
    def is_shipped(self) -> bool:
        return self.file.parent == FOLDER

    @property
    def constraints(self) -> list[str]:
        return [bound.requirement for bound in self.bounds]

    @property
    def short_constraints(self) -> list[str]:
        """What a `pip install` by hand must respect; the whole lock would make most of them unsatisfiable."""
        return [*(package for package in self.packages if Requirement(package).specifier), *self.constraints]

    @property
    def framework(self) -> frozenset[str]:
        """The normalized names of the packages that the stack has in one version, its CUDA libraries among them."""
        named = [Requirement(one) for one in (*self.packages, *(self.cuda.packages if self.cuda is not None else ()))]
        return frozenset(canonicalize_name(one.name) for one in named if "==" in str(one.specifier))

    @property
    def shipped_lock(self) -> Path:
        """Where the tested lock is, if the stack has one."""
        return self.file.with_suffix(".lock")

    @property
    def proof_file(self) -> Path:
        return self.file.parent / self.proof if "/" in self.proof else _PROOFS / f"proof_{self.proof}.py"

    @property
    def whole_proof_file(self) -> Path:
        whole = self.proof_file.with_stem(f"{self.proof_file.stem}_whole")
        return whole if whole.exists() else self.proof_file

    @property
    def files(self) -> list[Path]:
        """What a lab reads of the stack."""
        files = dict.fromkeys([self.file, self.shipped_lock, self.proof_file, self.whole_proof_file])
        return [file for file in files if file.exists()]

    @property
    def own_files(self) -> list[Path]:
        """Those that do not come with ailab."""
        return [file for file in self.files if file.parent not in (FOLDER, _PROOFS)]

    def proof_code(self) -> str:
        """The code that proves an environment of this stack; its last line of output is JSON."""
        return read_text(self.proof_file)

    def whole_proof_code(self) -> str:
        """The code that tries all that the stack is for, in seconds; the quick proof where a stack has no other."""
        return read_text(self.whole_proof_file)


def read_stack(file: Path) -> Stack:
    """The stack that `file` describes. Raises `SettingsError` for anything wrong in it, or with its proof."""
    text = read_text(file)
    described = parse_as(StackFile, file, text)
    stack = Stack.model_construct(file=file, **dict(described))
    if not os.access(stack.proof_file, os.R_OK):
        raise _wrong(file, text, "proof", _("There is no file {path} that can be read.").format(path=stack.proof_file),
                     _('Name a file beside this one, proof = "./prove.py", or one of ailab\'s: {names}.').format(
                         names=", ".join(_own_proofs())))  # fmt: skip
    if stack.cuda is not None and not any(Requirement(one).name.startswith("tensorflow") for one in stack.packages):
        raise _wrong(file, text, "cuda", _("[cuda] is for TensorFlow, which is not among the packages."),
                     _("Take it out: other frameworks bring their CUDA libraries as packages."))  # fmt: skip
    return stack


def read_own(files: Sequence[str]) -> dict[str, Stack]:
    """The stacks of a lab's own `files` (the paths in its settings), by name. Raises `SettingsError`, also for a name
    that is taken."""
    taken = dict.fromkeys(_shipped(), "ailab")
    found: dict[str, Stack] = {}
    for file in map(Path, files):
        stack = read_stack(file)
        if stack.name in taken:
            problem = _("There is a stack {name} already, from {place}.").format(
                name=repr(stack.name), place=taken[stack.name]
            )
            raise _wrong(file, read_text(file), "name", problem, _("Give it a name of its own."))
        taken[stack.name] = str(file)
        found[stack.name] = stack
    return found


def list_stacks(own: Sequence[str] = ()) -> list[str]:
    """The names that `load_stack` knows: those that ship with ailab, then the lab's own."""
    return [*_shipped(), *read_own(own)]


def load_stack(name: str, own: Sequence[str] = ()) -> Stack:
    """The stack called `name`: one that ships with ailab, or one of a lab's `own` files. Raises `UsageError` that names
    those there are."""
    found = read_own(own)
    if name in _shipped():
        return read_stack(FOLDER / f"{name}.toml")
    if name not in found:
        raise UsageError(
            _("There is no stack {name}.").format(name=repr(name)),
            remedy=_("Those there are: {names}.").format(names=", ".join([*_shipped(), *found])),
        )
    return found[name]


def _shipped() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def _own_proofs() -> list[str]:
    names = (path.stem.removeprefix("proof_") for path in _PROOFS.glob("proof_*.py"))
    return sorted(name for name in names if not name.endswith("_whole"))


def _wrong(file: Path, text: str, key: str, problem: str, remedy: str) -> SettingsError:
    return SettingsError(file, line_of(text, (key,)), key, problem, remedy)
