"""What lab.toml may say: one model that is schema, defaults and documentation."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic.fields import FieldInfo

GIB = 1024**3
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": GIB, "t": 1024**4}


def parse_size(value: object) -> int:
    """A size in bytes from `"8g"`, `"512m"`, `"1.5 GiB"` or a number of bytes; units are powers of 1024.

    Raises ValueError with the sizes that would do.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None or len(match[1]) > 15:
            raise ValueError("size")
        size = int(float(match[1]) * _UNITS[match[2].lower()])
    if not 0 < size < 2**60:
        raise ValueError("size")
    return size


def parse_optional_size(value: object) -> int:
    """As `parse_size`; an empty text is 0, which stands for no limit."""
    return 0 if value == "" else parse_size(value)


Size = Annotated[int, BeforeValidator(parse_size)]
OptionalSize = Annotated[int, BeforeValidator(parse_optional_size)]
Port = Annotated[int, Field(ge=1, le=65535, strict=True)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}$")]
# One line, nothing that would end a line in a requirements file or start an option of the tool it is handed to.
Requirement = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][^\r\n\x00]{0,300}$")]
# One folder, not hidden, and none of the lab's own files: those have a dot.
MountName = Annotated[str, StringConstraints(pattern=r"^[^\W_][\w-]{0,62}$")]
# As Debian Policy has it, 5.6.1.
DebianPackage = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+$", max_length=200)]


def parse_network(value: object) -> str:
    """An address or a network, "10.0.0.1" or "10.0.0.0/24", as a network. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("network")
    return str(ipaddress.ip_network(value.strip(), strict=False))


Network = Annotated[str, BeforeValidator(parse_network)]
Text = Annotated[str, StringConstraints(pattern=r"^[^\r\n\x00]*$", max_length=4096)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabSection(Section):
    name: Name = Field("lab", description="What people call the lab.")
    runtime: Literal["process", "docker"] = Field(
        "process", description="What runs people's tasks: processes of this machine, or containers of its engine."
    )
    language: Literal["en", "zh"] = Field("en", description="The language of the portal and the notebooks.")


class EnvironmentSection(Section):
    stack: Text = Field("tensorflow-2.9", min_length=1, description="The curated stack: ailab env stacks lists them.")
    python: Text = Field(
        "", description='A Python version ("3.10") or the path of an interpreter; empty: the best found.'
    )
    packages: list[Requirement] = Field([], description="What you want beside the stack, as pip would name it.")
    system: list[DebianPackage] = Field([], description='Debian packages that an image has: ["graphviz"].')
    gpu: Literal["auto", "off", "required"] = Field("auto", description="Whether CUDA libraries are installed.")


class ResourcesSection(Section):
    cpus: Annotated[int, Field(ge=0, le=4096, strict=True)] = Field(
        0, description="How many CPUs a workspace may use; 0: all of them."
    )
    memory: OptionalSize = Field(0, description='The most memory a workspace may take: "8g"; empty: all.')
    shm: Size = Field(2 * GIB, description="Shared memory of a container (/dev/shm), which data loaders use.")
    pids: Annotated[int, Field(ge=64, le=4194304, strict=True)] = Field(
        4096, description="The most processes and threads in a container."
    )
    gpus: Literal["all"] | list[Text] = Field(
        "all", description='The GPUs that a workspace may use: "all", or a list of their numbers or ids: ["0"].'
    )
    own_gpus: Annotated[int, Field(ge=0, le=64, strict=True)] = Field(
        0, description="How many of them it holds for itself, as a job does; 0: none, it shares all that it may use."
    )
    gpu_idle_minutes: Annotated[int, Field(ge=0, le=10080, strict=True)] = Field(
        15, description="When a job waits for them it gives them up if nobody has worked for so long; 0: never."
    )
    gpu_notice_minutes: Annotated[int, Field(ge=0, le=1440, strict=True)] = Field(
        5, description="How long before that it is said."
    )


class Mount(Section):
    """A folder of this machine that is in the lab by a name of its own."""

    path: Text = Field(min_length=1, description="The folder.")
    read_only: bool = Field(False, description="Whether nothing in the lab may write to it.")

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str) else value


class AccessSection(Section):
    bind: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F:.]+$")] = Field(
        "127.0.0.1", description="The address that the web port listens on; 0.0.0.0 lets other machines in."
    )
    port: Port = Field(8888, description="The one web port.")
    trusted_proxies: list[Network] = Field(
        [],
        description='Front proxies whose X-Forwarded-For and -Proto headers are trusted: ["10.0.0.1", "10.1.0.0/16"].',
    )


class ImageSection(Section):
    base: Text = Field(
        "", description='What it stands on: "debian:bookworm-slim" (or "bootstrap"); empty: what is had.'
    )
    registry: Text = Field("", description='Where images are pushed: "host:5000/team".')


class TrackingSection(Section):
    mlflow: bool = Field(
        True, strict=True, description="Whether jobs and trainings in notebooks are runs in the lab's MLflow."
    )


class JobsSection(Section):
    keep_days: Annotated[int, Field(ge=1, le=36500, strict=True)] = Field(
        90, description="Days for which output and checkpoints of ended jobs are kept."
    )
    keep_size: OptionalSize = Field(
        100 * GIB, description="The most disk that they may take; the oldest are removed first. Empty: no limit."
    )


class MirrorsSection(Section):
    pypi: Text = Field("", description="A PyPI mirror's simple index.")
    python: Text = Field("", description="A mirror of python-build-standalone's releases.")
    npm: Text = Field("", description="An npm registry.")
    apt: Text = Field("", description="A Debian mirror, for images.")
    ca_bundle: Text = Field("", description="A PEM file with the certificate authorities to trust.")
    proxy: Text = Field("", description="An HTTP proxy for all downloads.")


class Settings(Section):
    """All of lab.toml: its tables, and what stands before them."""

    stacks: list[Text] = Field([], description='Files with stacks of your own: ["./our-stack.toml"].')
    lab: LabSection = LabSection()
    environment: EnvironmentSection = EnvironmentSection()
    resources: ResourcesSection = ResourcesSection()
    mounts: dict[MountName, Mount] = Field({}, description="Folders of this machine that are in the lab, by name.")
    access: AccessSection = AccessSection()
    image: ImageSection = ImageSection()
    tracking: TrackingSection = TrackingSection()
    jobs: JobsSection = JobsSection()
    mirrors: MirrorsSection = MirrorsSection()

    def located(self, lab: Path) -> Settings:
        """These settings with their paths (relative to the lab, or with ~) made absolute."""
        environment, mirrors = self.environment, self.mirrors
        if "/" in environment.python:
            environment = environment.model_copy(update={"python": _absolute(lab, environment.python)})
        if mirrors.ca_bundle:
            mirrors = mirrors.model_copy(update={"ca_bundle": _absolute(lab, mirrors.ca_bundle)})
        stacks = [_absolute(lab, file) for file in self.stacks]
        mounts = {name: one.model_copy(update={"path": _absolute(lab, one.path)}) for name, one in self.mounts.items()}
        located = {"stacks": stacks, "environment": environment, "mirrors": mirrors, "mounts": mounts}
        return self.model_copy(update=located)

    @classmethod
    def heads(cls) -> dict[str, FieldInfo]:
        """The keys that stand before the first table."""
        return {name: field for name, field in cls.model_fields.items() if name not in (*cls.tables(), "mounts")}

    @classmethod
    def tables(cls) -> dict[str, type[BaseModel]]:
        """The model of each table, by its name."""
        kinds = {name: field.annotation for name, field in cls.model_fields.items()}
        return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Section)}


def _absolute(folder: Path, path: str) -> str:
    return str(folder.absolute() / Path(path).expanduser())
