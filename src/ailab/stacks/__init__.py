"""Stacks: curated, tested constraints that make a framework version work today. Data, and its loader."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from pydantic import BaseModel, ConfigDict, ValidationError

from ailab.errors import UsageError
from ailab.i18n import _

FOLDER = Path(__file__).parent
# NVIDIA publishes the CUDA libraries as wheels for this kind of machine.
CUDA_PLATFORM = "x86_64"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bound(_Strict):
    """A version that must not be left, and the error that it prevents."""

    requirement: str
    reason: str


class Cuda(_Strict):
    """A stack's CUDA libraries: the oldest driver that serves them, the files that the framework opens, the wheels."""

    driver: str
    libraries: list[str]
    packages: list[str]


class Stack(_Strict):
    """What makes a framework version work: which Pythons (best first), packages, bounds, and how to prove it."""

    name: str
    version: str
    title: str
    pythons: list[str]
    platforms: list[str]
    proof: str
    packages: list[str]
    bounds: list[Bound] = []
    cuda: Cuda | None = None

    @property
    def constraints(self) -> list[str]:
        return [bound.requirement for bound in self.bounds]

    @property
    def short_constraints(self) -> list[str]:
        """What a `pip install` by hand must respect; the whole lock would make most of them unsatisfiable."""
        return [*(package for package in self.packages if Requirement(package).specifier), *self.constraints]

    @property
    def shipped_lock(self) -> Path:
        """The tested lock that ships with the stack."""
        return FOLDER / f"{self.name}.lock"

    def proof_code(self) -> str:
        """The code that proves an environment of this stack; its last line of output is JSON."""
        return (FOLDER / f"proof_{self.proof}.py").read_text(encoding="utf-8")

    def whole_proof_code(self) -> str:
        """The code that tries all that the stack is for, in seconds; the quick proof where a stack has no other."""
        whole = FOLDER / f"proof_{self.proof}_whole.py"
        return whole.read_text(encoding="utf-8") if whole.exists() else self.proof_code()


def list_stacks() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_stack(name: str) -> Stack:
    """The stack called `name`. Raises `UsageError` that names those there are."""
    if name not in list_stacks():
        raise UsageError(
            _("There is no stack {name}.").format(name=repr(name)),
            remedy=_("Those there are: {names}.").format(names=", ".join(list_stacks())),
        )
    path = FOLDER / f"{name}.toml"
    try:
        return Stack.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise UsageError(_("The stack in {path} cannot be read.").format(path=path), detail=str(error)) from None
