"""Packages from other tools' files: pip's requirements.txt and conda's environment.yml.

Formats: https://pip.pypa.io/en/stable/reference/requirements-file-format/ and conda's MatchSpec,
https://docs.conda.io/projects/conda/en/stable/user-guide/concepts/pkg-specs.html#package-match-specifications
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from ailab.environments.conflicts import brings, stack_sides
from ailab.errors import UsageError
from ailab.i18n import _
from ailab.stacks import Stack

LARGEST_FILE = 1024 * 1024
_DEEPEST = 10
_LONGEST = 300
_PASSWORD = re.compile(r"//[^/\s@]*@")
_COMMENT = re.compile(r"(^|\s)#.*$")
_HASHES = re.compile(r"\s--hash[= ]\S+")
_FILE_OPTION = re.compile(r"(?:-r|--requirement)[ =]*(\S.*)$")
_LIMIT_OPTION = re.compile(r"(?:-c|--constraint)\b")
_EDITABLE = re.compile(r"(?:-e|--editable)\b")
_INDEX = re.compile(r"(?:-i|--index-url|--extra-index-url|-f|--find-links|--no-index)\b")
_PLACE = re.compile(r"[a-z+]+://|^(?:git|hg|svn|bzr)\+|^\.{0,2}/|@\s*(?:\w+:|/)|\.(?:whl|zip|tar\.gz)$")
_MATCH = re.compile(
    r"^(?:[\w./:-]+::)?(?P<name>[A-Za-z0-9_][\w.-]*)\s*(?:\[version=['\"]?(?P<inner>[^'\"\]]+)['\"]?\])?(?P<rest>.*)$"
)
# Of conda's packages, what has another name on PyPI.
_PYPI_NAMES = {
    "pytorch": "torch", "opencv": "opencv-python-headless", "py-opencv": "opencv-python-headless",
    "matplotlib-base": "matplotlib", "tensorflow-base": "tensorflow", "tensorflow-gpu": "tensorflow",
    "pytables": "tables", "msgpack-python": "msgpack", "python-graphviz": "graphviz", "seaborn-base": "seaborn",
    "dask-core": "dask", "importlib_metadata": "importlib-metadata", "pillow-simd": "pillow", "faiss-cpu": "faiss-cpu",
}  # fmt: skip
_CUDA = re.compile(r"cuda|cudnn|nccl|cutensor|cupti|nvidia")
# What conda packages beside Python's: compilers, libraries, other languages, tools.
_NOT_PYTHON = re.compile(
    r"_|lib(?!rosa|cst|sass)|r-|r$|r-base|gcc|gxx|gfortran|clang|ld_impl|binutils|openssl$|ca-certificates|sqlite$|zlib$|"
    r"zstd$|xz$|lz4-c|bzip2$|tk$|readline|ncurses|mkl$|mkl-service|blas|openblas|lapack|intel-openmp|llvm-openmp|ffmpeg|"
    r"nodejs|git$|git-lfs|make$|openmpi|mpich|mpi$|hdf5$|fftw|gmp$|mpfr|mpc$|icu$|expat|fontconfig|freetype|jpeg$|"
    r"lcms2|giflib|x264|x265|openh264|gnutls|nettle|lame$|aom$|dav1d|svt-av1|snappy$|brotli-bin|c-ares|krb5$|yaml$|"
    r"qt$|qt-main|glib$|gettext|graphviz$|pandoc$|tar$|curl$|wget$|unzip$|(?:java|openjdk|julia|perl|ruby|rust|go)(?:$|-)|xorg-"
)


@dataclass
class Found:
    """What a file asks for: packages as lab.toml has them, and what is left out, each with its reason."""

    packages: list[str] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)

    def leave(self, what: str, why: str) -> None:
        shown = _PASSWORD.sub("//***@", what)
        self.left.append((shown if shown.isprintable() else _short(shown), why))


def read_packages(path: Path) -> Found:
    """What the file at `path` asks for. Raises `UsageError` for one that cannot be read."""
    return _conda(path) if path.suffix in (".yml", ".yaml") else _requirements(path)


def _text(path: Path) -> str:
    try:
        data = path.open("rb").read(LARGEST_FILE + 1)
    except OSError as error:
        message = _("{path} cannot be read: {reason}.").format(path=path, reason=error.strerror)
        raise UsageError(message, remedy=_is_what()) from None
    # PowerShell's `pip freeze > requirements.txt` writes UTF-16.
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or len(data) > LARGEST_FILE:
        raise UsageError(_("{path} is no text file, or larger than 1 MiB.").format(path=path), remedy=_is_what())
    return text


def _is_what() -> str:
    return _("Name a requirements.txt or an environment.yml: ailab env import FILE")


def _requirements(path: Path) -> Found:
    found = Found()
    for line in _lines(_text(path), path.parent):
        _take(line, found)
    return found


def _lines(text: str, folder: Path, depth: int = 0) -> Iterator[str]:
    """The lines of a requirements file and of those that it names; continued ones joined, comments and hashes gone."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = _HASHES.sub("", _COMMENT.sub("", line)).strip()
        named = _FILE_OPTION.match(line)
        if named is not None and "://" not in named[1]:
            if depth >= _DEEPEST:
                raise UsageError(
                    _("The files name one another without end: {line}").format(line=line), remedy=_is_what()
                )
            other = folder / named[1].strip("\"'")
            yield from _lines(_text(other), other.parent, depth + 1)
        elif line:
            yield line


def _take(line: str, found: Found) -> None:
    """Put one line of a requirements file where it belongs."""
    why = _no_package(line)
    if why:
        found.leave(line, why)
        return
    try:
        wanted = Requirement(line.split(" --")[0].strip())
    except InvalidRequirement:
        found.leave(_short(line), _("it is not the name of a package"))
        return
    if len(str(wanted)) > _LONGEST:
        found.leave(_short(line), _("it is too long"))
        return
    if wanted.url:
        found.leave(line, _("it names an address, and a lock holds none"))
    elif str(wanted) not in found.packages:
        found.packages.append(str(wanted))


def _no_package(line: str) -> str:
    if _LIMIT_OPTION.match(line):
        return _("constraints stay behind: the stack has bounds of its own")
    if _INDEX.match(line):
        return _("set [mirrors] pypi in lab.toml instead")
    if _EDITABLE.match(line) or _FILE_OPTION.match(line) or (_PLACE.search(line) and not line.startswith("-")):
        return _("it names an address, and a lock holds none")
    if line.startswith("-"):
        return _("this option of pip has no meaning here")
    return ""


def _conda(path: Path) -> Found:
    document = _yaml(path)
    found = Found()
    entries = document.get("dependencies") or []
    if not isinstance(entries, list):
        raise UsageError(_("{path}: dependencies is no list.").format(path=path), remedy=_is_what())
    for entry in entries:
        if isinstance(entry, str):
            _take_match(entry.strip(), found)
        elif isinstance(entry, dict) and isinstance(entry.get("pip"), list):
            for line in _lines("\n".join(map(str, entry["pip"])), path.parent):
                _take(line, found)
        else:
            found.leave(_short(entry), _("it is not the name of a package"))
    if document.get("variables"):
        found.leave("variables", _("a lab sets no variables from conda's file"))
    return found


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(_text(path))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise UsageError(_("{place}: this is not YAML.").format(place=place), remedy=_is_what()) from None
    if not isinstance(document, dict):
        raise UsageError(_("{path} is no environment.yml of conda.").format(path=path), remedy=_is_what())
    return document


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _take_match(text: str, found: Found) -> None:
    """Put one of conda's match specifications where it belongs."""
    match = _MATCH.match(text)
    if match is None:
        found.leave(_short(text), _("it is not the name of a package"))
        return
    name = match["name"].lower()
    why = _no_pip_package(name)
    if why:
        found.leave(text, why)
        return
    wanted = _PYPI_NAMES.get(name, name)
    specifier = _specifier((match["inner"] or match["rest"]).strip())
    if specifier is None:
        found.leave(text, _("its version is written in a way that pip does not know; taken without it"))
    _take(f"{wanted}{specifier or ''}", found)


def _no_pip_package(name: str) -> str:
    if name == "python":
        return _("the stack chooses the Python; see [environment] python")
    if name in ("pip", "setuptools", "wheel", "conda", "mamba"):
        return _("an installer, not yours to pin here")
    if _CUDA.search(name):
        return _("CUDA comes with the stack")
    if _NOT_PYTHON.match(name):
        return _("no Python package: where you need it, apt-get has it")
    return ""


def _specifier(text: str) -> str | None:
    """conda's version as pip's: "=1.23" is a prefix, "1.23 build" or "=1.23=build" exact; None where pip has none."""
    if not text:
        return ""
    if "|" in text:
        return None
    exact = re.fullmatch(r"=?([\w.!+]+)[= ]+[\w.*]+", text)
    if exact:
        return f"=={exact[1]}"
    if prefix := re.fullmatch(r"=([\w.!+]+?)(\.?\*)?", text):
        return f"=={prefix[1]}.*"
    if plain := re.fullmatch(r"([\w.!+]+?)(\.\*)?", text):
        return f"=={plain[1]}{plain[2] or ''}"
    compact = text.replace(" ", "")
    try:
        Requirement(f"x{compact}")
    except InvalidRequirement:
        return None
    return compact


def within(found: Found, stack: Stack) -> Found:
    """`found` with what the stack itself brings left out, and versions that its bounds forbid not taken over."""
    fit = Found(left=list(found.left))
    sides = {canonicalize_name(Requirement(one.requirement).name): one for one in stack_sides(stack)}
    for text in found.packages:
        wanted = Requirement(text)
        side = sides.get(canonicalize_name(wanted.name))
        if brings(stack, text) and (side is not None or not wanted.specifier):
            version = side.requirement if side is not None else wanted.name
            fit.leave(text, _("the stack brings it: {requirement}").format(requirement=version))
        elif side is not None and not agree(wanted.specifier, Requirement(side.requirement).specifier):
            fit.packages.append(wanted.name)
            why = _("taken without its version; the stack's bound is {bound}: {reason}")
            fit.leave(text, why.format(bound=side.requirement, reason=side.reason))
        else:
            fit.packages.append(text)
    return fit


def agree(one: SpecifierSet, two: SpecifierSet) -> bool:
    """Whether some version may satisfy both: tried with the versions that they name, and those just above and below."""
    named = {Version(part.version.removesuffix(".*")) for part in (*one, *two) if part.operator != "==="}
    near = {Version(f"{version.base_version}.1") for version in named}
    below = {Version(f"{version.epoch}!0") for version in named} | {Version("0")}
    return any(one.contains(each, True) and two.contains(each, True) for each in named | near | below)
