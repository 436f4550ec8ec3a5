"""What decides how an environment computes, as one document, and what is different between two machines'."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ailab import command
from ailab.environments import installed
from ailab.environments.generations import Generation
from ailab.errors import UsageError
from ailab.i18n import _

FORMAT = 1
ASK_SECONDS = 20.0
# What the libraries choose their code by (oneDNN, OpenBLAS, Eigen), in the words of /proc/cpuinfo: x86-64, then Arm.
_CPU_FEATURES = """
sse3 pni ssse3 sse4_1 sse4_2 avx avx2 fma fma4 f16c bmi1 bmi2 avx512f avx512cd avx512bw avx512dq avx512vl avx512vbmi
avx512_vnni avx512_bf16 avx512_fp16 avx_vnni amx_tile amx_int8 amx_bf16
asimd asimdhp asimddp asimdfhm fphp bf16 i8mm sve sve2 sme
"""
_ASK = """
import json, os, platform, sysconfig
print(json.dumps({
    "interpreter": {
        "implementation": platform.python_implementation(),
        "version": platform.python_version(),
        "build": " ".join(platform.python_build()),
        "compiler": platform.python_compiler(),
        "abi": sysconfig.get_config_var("SOABI"),
    },
    "glibc": os.confstr("CS_GNU_LIBC_VERSION").split()[-1] if "CS_GNU_LIBC_VERSION" in os.confstr_names else "",
    "platform": sysconfig.get_platform(),
}))
"""


class _Frozen(BaseModel):
    # A newer ailab may say more; what it says of the same things can still be compared.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Interpreter(_Frozen):
    """A Python by its own word; `build` is its branch and date, `abi` what compiled modules must fit."""

    implementation: str
    version: str
    build: str
    compiler: str
    abi: str


class Package(_Frozen):
    """A version, and a digest of the installed files (empty: unknown)."""

    version: str
    content: str = ""


class Gpu(_Frozen):
    name: str
    compute_capability: str


class Fingerprint(_Frozen):
    """The document of `env fingerprint --json`. `environment` and `lock` are told, not compared.

    `cuda` has the CUDA libraries (the nvidia-* packages) by version; `driver` is empty where there is none.
    """

    format: int
    environment: str
    lock: str
    interpreter: Interpreter
    packages: dict[str, Package]
    cuda: dict[str, str]
    driver: str
    gpus: list[Gpu]
    cpu_features: list[str]
    glibc: str
    platform: str

    def digest(self) -> str:
        """The same on two machines where nothing that is compared differs: 64 hexadecimal digits."""
        compared = self.model_dump(exclude={"format", "environment", "lock"})
        return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {"digest": self.digest()} | self.model_dump()


@dataclass(frozen=True)
class Difference:
    """One thing that differs: of which kind, which, and what it is here and there (None: not there at all)."""

    kind: str
    name: str
    here: str | None
    there: str | None


def fingerprint(generation: Generation, *, driver: str, gpus: Sequence[tuple[str, str]]) -> Fingerprint:
    """The fingerprint of a generation on this machine. `gpus` are names and compute capabilities ("8.0")."""
    said = json.loads(command.run([generation.program, "-I", "-c", _ASK], timeout=ASK_SECONDS).stdout)
    found = installed.distributions(installed.site_packages(generation.folder))
    cuda = {one.name: one.version for one in found if one.name.startswith("nvidia-")}
    packages = {one.name: {"version": one.version, "content": one.content()} for one in found if one.name not in cuda}
    return Fingerprint.model_validate(
        said
        | {
            "format": FORMAT,
            "environment": generation.id,
            "lock": generation.lock,
            "packages": packages,
            "cuda": cuda,
            "driver": driver,
            "gpus": [{"name": name, "compute_capability": capability} for name, capability in gpus],
            "cpu_features": cpu_features(Path("/proc/cpuinfo").read_text(encoding="utf-8")),
        }
    )


def cpu_features(cpuinfo: str) -> list[str]:
    """The features of /proc/cpuinfo that decide which code computes; `flags` on x86-64, `Features` on Arm."""
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    return sorted(set(_CPU_FEATURES.split()) & set(line[1].split())) if line else []


def read_fingerprint(text: str, name: str) -> Fingerprint:
    """Another machine's fingerprint. Raises `UsageError` for what is none; `name` is where the text came from."""
    remedy = _("Make one on the other machine: ailab env fingerprint --json > FILE")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = _("{file} is no fingerprint: {reason}.").format(file=name, reason=error)
        raise UsageError(message, remedy=remedy) from None
    known = document.get("format") if isinstance(document, dict) else None
    if isinstance(known, int) and known > FORMAT:
        raise UsageError(
            _("{file} was written by a newer ailab (format {format}).").format(file=name, format=known),
            remedy=_("Update ailab: this one reads format {format}.").format(format=FORMAT),
        )
    try:
        return Fingerprint.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        message = _("{file} is no fingerprint: {reason}.").format(file=name, reason=reason)
        raise UsageError(message, remedy=remedy) from None


def compare(here: Fingerprint, there: Fingerprint) -> list[Difference]:
    """Every difference by name; none: the two compute alike, as far as that can be seen from outside."""
    return [
        *_fields("interpreter", here.interpreter.model_dump(), there.interpreter.model_dump()),
        *_fields("package", _versions(here), _versions(there)),
        *_builds(here, there),
        *_fields("cuda", here.cuda, there.cuda),
        *_fields("driver", {"NVIDIA": here.driver or None}, {"NVIDIA": there.driver or None}),
        *_fields("gpu", _gpus(here), _gpus(there)),
        *_fields("cpu", dict.fromkeys(here.cpu_features, "yes"), dict.fromkeys(there.cpu_features, "yes")),
        *_fields("system", {"glibc": here.glibc}, {"glibc": there.glibc}),
        *_fields("system", {"platform": here.platform}, {"platform": there.platform}),
    ]


def _fields(kind: str, here: Mapping[str, str | None], there: Mapping[str, str | None]) -> Iterator[Difference]:
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            yield Difference(kind, name, here.get(name), there.get(name))


def _versions(one: Fingerprint) -> dict[str, str]:
    return {name: package.version for name, package in one.packages.items()}


def _builds(here: Fingerprint, there: Fingerprint) -> Iterator[Difference]:
    """Packages of one version whose files differ. For another platform or Python they must, which is said already."""
    if (here.platform, here.interpreter.abi) != (there.platform, there.interpreter.abi):
        return
    for name in sorted(here.packages.keys() & there.packages.keys()):
        one, two = here.packages[name], there.packages[name]
        if one.version == two.version and one.content and two.content and one.content != two.content:
            yield Difference("build", f"{name} {one.version}", one.content, two.content)


def _gpus(one: Fingerprint) -> dict[str, str]:
    return {str(index): f"{gpu.name} ({gpu.compute_capability})" for index, gpu in enumerate(one.gpus)}
