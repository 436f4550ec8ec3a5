"""A small image by the Dockerfile of labs: every kind of instruction, with few packages and a stand-in for ailab."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conftest import plain_environment
from image_base import image_base

from ailab import bases, engine
from ailab.access import tools
from ailab.environments import portable
from ailab.environments.lock import read_lock
from ailab.environments.uv import Uv
from ailab.images import apt, context
from ailab.images.dockerfile import CONTROL, Recipe, Tool
from ailab.images.naming import Labels
from ailab.paths import IMAGE_HOME, MachinePaths
from ailab.settings import MirrorsSection
from ailab.stacks import load_stack

_PYTHON = f"python3.{sys.version_info.minor}"
_PROGRAM = IMAGE_HOME / "control" / "pythons" / _PYTHON / "bin" / _PYTHON
# Each file of the Dockerfile's, and the package that it installs.
_PACKAGES = {
    "framework.txt": "cycler",
    "stack.txt": "packaging",
    "control/control.txt": "threadpoolctl",
    "lab.txt": "comm",
}
# Of the standard library, what takes long to compile and nothing here imports.
_UNUSED = ("asyncio", "distutils", "ensurepip", "lib2to3", "pydoc_data", "sqlite3", "tkinter", "unittest", "xml")
_SECONDS = 300.0
_BUILD = """
import json, sys
from pathlib import Path
from ailab import engine
from ailab.images import builder
work = json.loads(sys.argv[2])
work |= {name: Path(work[name]) for name in ("context", "cache")}
work["secrets"] = {name: Path(path) for name, path in work["secrets"].items()}
try:
    builder.choose(engine.connect(), sys.argv[1]).build(builder.Work(**work), lambda text: None)
except AilabError as error:
    sys.exit(f"{error.message}\\n{error.detail}")
"""


@dataclass(frozen=True)
class SmallImage:
    """What a builder builds, in a folder of the account that builds: a context, and files with the build's secrets.

    `program` is a Python that has ailab and that the account may run; `apt` are Debian packages on top of the base,
    name -> version.
    """

    folder: Path
    account: pwd.struct_passwd
    program: Path
    secrets: Mapping[str, Path]
    apt: Mapping[str, str]

    def write(self, name: str, version: str = "") -> None:
        """Write the context of the lab called `name`. With `version`, its last package has one that does not exist."""
        recipe = Recipe(
            lab=name,
            base=image_base().reference,
            python=_PROGRAM,
            own_python=_PROGRAM,
            tools=(Tool("control.txt", CONTROL),),
            proxy=IMAGE_HOME / "tools" / "proxy",
            marks={IMAGE_HOME / "tools" / "mark": "it's here"},
            apt=self.apt,
            packages=True,
        )
        made = self.folder / "context"
        context.write(made, _content(version))
        labels = Labels(name, "small", "small-1", "0" * 64, "0.1.0")
        (made / "Dockerfile").write_text(recipe.render(labels.to_labels()))
        # Podman's client puts the secrets there for a moment.
        os.chown(made, self.account.pw_uid, self.account.pw_gid)

    def build(self, builder: str, names: Sequence[str], environment: Mapping[str, str], *, fresh: bool = False) -> str:
        """Build as the account, which may use the engine; return how that failed, empty where it did not."""
        work = {
            "context": str(self.folder / "context"),
            "base": image_base().reference,
            "names": list(names),
            "secrets": {name: str(path) for name, path in self.secrets.items()},
            "cache": str(self.folder / "buildah"),
            "fresh": fresh,
        }
        done = subprocess.run(
            [self.program, "-I", "-c", _BUILD, builder, json.dumps(work)],
            user=self.account.pw_uid,
            group=self.account.pw_gid,
            extra_groups=[grp.getgrnam("docker").gr_gid],
            env=plain_environment(self.folder, TMPDIR=str(self.folder), **environment),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        assert done.returncode == 0 or done.stderr, done
        return done.stderr if done.returncode != 0 else ""


def make(folder: Path, account: pwd.struct_passwd, machine: MachinePaths) -> SmallImage:
    """Return a small image in the new folder `folder`, whose context has yet to be written. The ailab that has been
    installed in `machine` builds it."""
    folder.mkdir()
    (folder / "secrets").mkdir()
    texts = bases.way_to_downloads(MirrorsSection())
    secrets = {name: folder / "secrets" / name for name in texts}
    for name, text in texts.items():
        secrets[name].write_text(text)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid)
    chosen = apt.resolve(engine.connect(), image_base().reference, ["tree"], texts, lambda _text: None)
    return SmallImage(folder, account, machine.control / "current/bin/python", secrets, chosen)


def _content(version: str) -> context.Content:
    locked = read_lock(load_stack("science").shipped_lock)
    assert locked is not None
    pins = {package.name: package.requirement() + "\n" for package in locked.packages}
    texts = {f"requirements/{file}": pins[package] for file, package in _PACKAGES.items()}
    if version:
        texts["requirements/lab.txt"] = f"comm=={version} --hash=sha256:{'0' * 64}\n"
    # It says what `image seal` would, and does nothing.
    texts |= {"ailab/__main__.py": "print('sealed')\n", "lab/lab.toml": "[lab]\n"}
    packed = {
        "pythons.tar": context.Packed("pythons", _place_programs),
        "proxy.tar": context.Packed("proxy", lambda folder: (folder / "main.js").write_text("// nothing\n") and None),
    }
    return context.Content(texts=texts, copies={}, packed=packed)


def _place_programs(folder: Path) -> None:
    placed = folder / _PROGRAM.relative_to(IMAGE_HOME).parents[1]
    portable.copy(tools.own_python(), placed, libraries=True, compiled=False)
    for name in _UNUSED:
        shutil.rmtree(placed / "lib" / _PYTHON / name, ignore_errors=True)
    (placed / portable.ORIGIN).unlink()
    uv = Uv(MachinePaths(folder), MirrorsSection()).program
    (folder / "control" / "uv").write_bytes(Path(uv).read_bytes())
    (folder / "control" / "uv").chmod(0o755)
