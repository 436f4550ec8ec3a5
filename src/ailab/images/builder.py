"""What builds an image from its context: BuildKit by Docker's own command, Podman's service, or buildah."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ailab import command, engine, files
from ailab.engine import told
from ailab.errors import UsageError
from ailab.i18n import _
from ailab.images import shelf
from ailab.images.base import REPOSITORY
from ailab.images.dockerfile import EPOCH
from ailab.images.steps import BUILDAH, BUILDKIT, Dialect, Steps

if TYPE_CHECKING:
    from docker import DockerClient

BUILD_SECONDS = 3600.0
_ASK_SECONDS = 20.0
_MOVE_SECONDS = 1800.0
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """What to build: the folder with a Dockerfile, the reference of its base in the engine's store, the names of the
    image, the secrets (files, by id); `cache`: a folder of whoever builds, for what makes the next build faster;
    `fresh`: take no earlier layer."""

    context: Path
    base: str
    names: Sequence[str]
    secrets: Mapping[str, Path]
    cache: Path
    fresh: bool = False

    def options(self) -> list[str]:
        """Those that all builders have."""
        words = ["--network", "host", *(["--no-cache"] if self.fresh else [])]
        for name, path in self.secrets.items():
            words += ["--secret", f"id={name},src={path}"]
        return words


class Builder(Protocol):
    def build(self, work: Work, tell: Tell) -> None:
        """Afterwards the image is in the engine's store, by all its names. Raises `BuildFailed`."""


@dataclass(frozen=True)
class BuildKit:
    """Docker's own command, with BuildKit: in the client since 18.09, by its plugin buildx since 23."""

    program: str

    def build(self, work: Work, tell: Tell) -> None:
        tags = [word for name in work.names for word in ("--tag", name)]
        words = [self.program, "build", "--progress", "plain", *work.options(), *tags, str(work.context)]
        _follow(words, BUILDKIT, tell, {"DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"})


@dataclass(frozen=True)
class Podman:
    """Podman's service builds, in the store that is the engine's; its command hands over the context."""

    program: str
    client: DockerClient

    def build(self, work: Work, tell: Tell) -> None:
        words = [self.program, "--remote", "--url", engine.address(), "build"]
        with tempfile.TemporaryDirectory(prefix="ailab-build-") as folder:
            image = _build_with(words, work, Path(folder), tell)
        # Not by --tag: what Podman calls localhost/NAME is not NAME to those who ask as they ask Docker.
        shelf.tag(self.client, image, work.names)


@dataclass(frozen=True)
class Buildah:
    """buildah has a store of its own, in our cache: the base goes there from the engine's, and the image comes back, as
    files. Layers are overlaid, without a privilege too (Linux 5.11 and later): what a distribution may have as default
    copies each of them whole."""

    program: str
    client: DockerClient

    def build(self, work: Work, tell: Tell) -> None:
        work.cache.mkdir(parents=True, exist_ok=True)
        places = ["--root", str(work.cache / "store"), "--runroot", str(work.cache / "run")]
        words = [self.program, "--storage-driver", "overlay", *places]
        # Else the cache mounts of all accounts are in one folder, which belongs to the first that has built.
        variables = {"TMPDIR": str(work.cache)}
        kept = f"localhost/{work.names[-1]}"
        with files.work_folder(work.cache / "handing-over") as folder:
            self._ensure_base(words, work.base, folder, tell)
            image = _build_with([*words, "build", "--tag", kept], work, folder, tell, variables)
            tell(_("handing the image to the engine"))
            archive = folder / "image.tar"
            # Named by its content alone: whoever builds beside us has another name.
            handed = f"localhost/ailab-build:{image.removeprefix('sha256:')}"
            command.run([*words, "push", image, f"docker-archive:{archive}:{handed}"], timeout=_MOVE_SECONDS)
            with archive.open("rb") as source:
                self._load(source)
        shelf.tag(self.client, handed, work.names)
        with told():
            self.client.api.remove_image(handed, noprune=True)
        # Of earlier builds only what this one has shared is of use.
        command.run([*words, "rmi", "--prune"], timeout=_MOVE_SECONDS, check=False)

    def _ensure_base(self, words: Sequence[str], base: str, folder: Path, tell: Tell) -> None:
        """A base of a registry buildah fetches itself."""
        if not base.startswith(REPOSITORY):
            return
        if command.run([*words, "inspect", "--type", "image", base], timeout=_ASK_SECONDS, check=False).status == 0:
            return
        tell(_("handing the base to buildah"))
        archive = folder / "base.tar"
        with told(), archive.open("wb") as sink:
            for chunk in self.client.api.get_image(base):
                sink.write(chunk)
        try:
            command.run([*words, "pull", f"docker-archive:{archive}"], timeout=_MOVE_SECONDS)
        except command.CommandFailed as error:
            _refuse_without_ids(error)
            raise

    def _load(self, source: Any) -> None:
        from ailab.images import progress

        with told():
            try:
                progress.follow(self.client.api.load_image(source), lambda _text: None)
            except progress.Refused as refused:
                raise engine.refusal(refused.message) from None


def _build_with(
    words: Sequence[str], work: Work, folder: Path, tell: Tell, variables: Mapping[str, str] | None = None
) -> str:
    """Build as Podman and buildah do; the id of the image. All times are one, so two builds have the same layers to
    the digest. In Docker's format, for OCI's has no HEALTHCHECK; it notes the container of the build, so the image's
    own digest is another one each time."""
    note = folder / "id"
    options = ["--format", "docker", "--layers", "--timestamp", str(EPOCH), "--iidfile", str(note)]
    _follow([*words, *options, *work.options(), str(work.context)], BUILDAH, tell, variables)
    return note.read_text().strip()


def _follow(words: Sequence[str], dialect: Dialect, tell: Tell, variables: Mapping[str, str] | None = None) -> None:
    steps = Steps(dialect, tell)
    environment = dict(os.environ) | dict(variables or {})
    try:
        command.run(words, timeout=BUILD_SECONDS, env=environment, on_line=steps.read, merged=True)
    except command.CommandFailed as error:
        raise steps.failure(error) from error


def _refuse_without_ids(error: command.CommandFailed) -> None:
    from ailab.paths import account_name

    if re.search(r"subuid|newuidmap|insufficient UIDs|user namespace", error.detail):
        raise UsageError(
            _("buildah needs subordinate ids, which the account {account} does not have.").format(
                account=account_name()
            ),
            remedy=_(
                "Give it some: sudo usermod --add-subuids 200000-265535 --add-subgids 200000-265535 {account}; "
                "or build with another builder: ailab image build --builder docker"
            ).format(account=account_name()),
            detail=error.detail,
        ) from error


def choose(client: DockerClient, name: str = "") -> Builder:
    """The builder called `name` in `BUILDERS`; without a name the one that fits this machine's engine: Podman's own,
    else Docker's with BuildKit, else buildah. Raises `UsageError` where it cannot be had."""
    if not name:
        docker_alone = shutil.which("buildah") is None or _docker() is not None
        name = "podman" if engine.is_podman(client) else "docker" if docker_alone else "buildah"
    return BUILDERS[name](client)


def _buildkit(client: DockerClient) -> Builder:
    if engine.is_podman(client):
        raise UsageError(
            _("The engine at {address} is Podman, which has no BuildKit.").format(address=engine.address()),
            remedy="ailab image build --builder podman",
        )
    program = _docker()
    if program is None:
        raise UsageError(
            _("Nothing on this machine builds images: there is no docker with BuildKit."),
            remedy=_(
                "Install one (Debian 12, Ubuntu: sudo apt-get install docker.io; Debian 13: docker-cli and "
                "docker-buildx; beside Docker's own packages: docker-buildx-plugin)."
            ),
        )
    return BuildKit(program)


def _podman(client: DockerClient) -> Builder:
    if not engine.is_podman(client):
        raise UsageError(
            _("The engine at {address} is not Podman, and Podman builds in its own.").format(address=engine.address()),
            remedy=_(
                "Start Podman's (systemctl --user start podman.socket) and name it "
                "(export DOCKER_HOST=unix://$XDG_RUNTIME_DIR/podman/podman.sock); or: ailab image build"
            ),
        )
    return Podman(_found("podman"), client)


def _buildah(client: DockerClient) -> Builder:
    return Buildah(_found("buildah"), client)


def _found(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        raise UsageError(
            _("{name} is to build the image, and is not here.").format(name=name),
            remedy=_("Install it: sudo apt-get install {name}").format(name=name),
        )
    return program


BUILDERS: Mapping[str, Callable[[Any], Builder]] = {"docker": _buildkit, "podman": _podman, "buildah": _buildah}


def _docker() -> str | None:
    """The first docker on PATH that has BuildKit: a bare client of today refuses without buildx."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        program = shutil.which("docker", path=folder)
        if program is not None and _has_buildkit(program):
            return program
    return None


def _has_buildkit(program: str) -> bool:
    if command.run([program, "buildx", "version"], timeout=_ASK_SECONDS, check=False).status == 0:
        return True
    said = command.run([program, "version", "--format", "{{.Client.Version}}"], timeout=_ASK_SECONDS, check=False)
    version = re.match(r"(\d+)\.", said.stdout)
    return version is not None and 18 < int(version[1]) < 23
