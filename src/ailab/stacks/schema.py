"""What a stack's file may say; every refusal of it says what would be right."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ailab.i18n import _
from ailab.settings_file import refused


def _matching(pattern: str, text: str, remedy: str) -> str:
    if re.fullmatch(pattern, text) is None:
        raise refused(remedy)
    return text


def _name(text: str) -> str:
    """It becomes part of a generation's folder."""
    remedy = _("A stack's name has small letters, digits, dots and dashes: our-stack.")
    return _matching(r"[a-z0-9][a-z0-9._-]{0,40}", text, remedy)


def _line(text: str) -> str:
    return _matching(r"[^\r\n\x00]{1,500}", text, _("Write one line."))


def _python(text: str) -> str:
    return _matching(r"3\.\d{1,2}", text, _('Write a Python by its minor version: "3.11".'))


def _version(text: str) -> str:
    return _matching(r"\d+(\.\d+)*", text, _('Write a version: "525.60.13".'))


def _library(text: str) -> str:
    return _matching(r"[\w.+-]+\.so[\w.]*", text, _('Write the name of a library\'s file: "libcudnn.so.8".'))


def _pin(text: str) -> str:
    return _matching(r"[\w.-]+==[\w.+!]+", text, _('Write one version exactly: "nvidia-cudnn-cu12==8.9.4.25".'))


def _variable(text: str) -> str:
    return _matching(r"[A-Z_][A-Z0-9_]*", text, _('Write the name of a variable: "HOROVOD_WITH_GLOO".'))


def _package(text: str) -> str:
    """A package by name: one with an address could be in no lock."""
    remedy = _('Write it as pip names it: "numpy", "pandas<3".')
    try:
        address = Requirement(_matching(r"[^\r\n\x00]{1,300}", text, remedy)).url
    except (InvalidRequirement, RecursionError):
        raise refused(remedy) from None
    if address:
        raise refused(remedy)
    return text


def _bound(text: str) -> str:
    if not Requirement(_package(text)).specifier:
        raise refused(_('A bound says which versions: "numpy<2".'))
    return text


Line = Annotated[str, AfterValidator(_line)]
Version = Annotated[str, AfterValidator(_version)]
Library = Annotated[str, AfterValidator(_library)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bound(_Strict):
    """A version that must not be left, and the error that it prevents.

    `probe` is Python that meets the error where the whole proof does not, as the import of an add-on.
    """

    requirement: Annotated[str, AfterValidator(_bound)]
    reason: Line
    probe: str = ""


class Cuda(_Strict):
    """A stack's CUDA libraries: their version, the oldest driver that serves them, the files that the framework opens,
    in its order, and the wheels.

    `aliases` are names under which the framework opens a library that the wheels call otherwise.
    """

    version: Version
    driver: Version
    libraries: list[Library]
    packages: list[Annotated[str, AfterValidator(_pin)]]
    aliases: dict[Library, Library] = {}


class Build(_Strict):
    """A package without wheels that is built against what is installed beside it, as an extension of the framework.

    `variables` tell its build what is wished for.
    """

    package: Line
    variables: dict[Annotated[str, AfterValidator(_variable)], Line] = {}


class StackFile(_Strict):
    """What makes a framework version work: which Pythons (best first), packages, bounds, and how to prove it.

    `proof` is the code that proves an environment: with a slash a file, relative to the stack's own ("./prove.py");
    without, one of ailab's ("tensorflow", "numpy"). The whole proof is the file beside it whose name ends in `_whole`.
    """

    name: Annotated[str, AfterValidator(_name)]
    version: Line
    title: Line
    pythons: Annotated[list[Annotated[str, AfterValidator(_python)]], Field(min_length=1)]
    platforms: Annotated[list[Literal["x86_64", "aarch64"]], Field(min_length=1)]
    proof: Line
    packages: Annotated[list[Annotated[str, AfterValidator(_package)]], Field(min_length=1)]
    bounds: list[Bound] = []
    builds: list[Build] = []
    cuda: Cuda | None = None
