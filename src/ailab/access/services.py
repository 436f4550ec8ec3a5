"""The lab's own services and its workspaces as tasks: pure functions from settings and paths to what is run."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ailab import __version__, downloads
from ailab.access.tools import Tools
from ailab.paths import LabPaths
from ailab.runtimes.base import Site, TaskKind, TaskSpec

if TYPE_CHECKING:
    # The hub reads this module, and no settings.
    from ailab.settings import Settings

PORTAL_PREFIX = "/services/ailab/"
MLFLOW_PREFIX = f"{PORTAL_PREFIX}mlflow"
# Where the Jupyter server listens, as JupyterHub tells it.
_LISTENS = "JUPYTERHUB_SERVICE_URL"
_HUB_SOCKET = re.compile(rf"http\+unix://[^/\s\"']*{re.escape(quote('/hub/hub.sock', safe=''))}")
# Jupyter Server's own default, which beside a socket it takes for none (2.21.1, `ServerApp.init_webapp`).
_NO_PORT = 8888
_HUBS = ("JUPYTERHUB_", "JPY_", "MEM_", "CPU_")
_PASSED_ON = ("LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")


def socket_url(path: Path) -> str:
    """The address of a unix socket as JupyterHub and its proxy write it."""
    return f"http+unix://{quote(str(path), safe='')}"


def web_host(settings: Settings) -> str:
    """The address at which a browser on this machine finds the lab."""
    bind = settings.access.bind
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)  # noqa: S104  where it listens, not where we do


def web_url(settings: Settings) -> str:
    """Where a browser on this machine finds the lab."""
    host = web_host(settings)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.access.port}/"


def base_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What every task of the lab gets: where programs and the home are, language and certificates, nothing else."""
    passed = {name: environ[name] for name in _PASSED_ON if name in environ}
    return {"PATH": os.defpath, "HOME": environ.get("HOME", "/"), "LANG": "C.UTF-8", **passed, "MALLOC_ARENA_MAX": "2"}


def service_specs(settings: Settings, lab: LabPaths, tools: Tools, secrets: Mapping[str, str]) -> list[TaskSpec]:
    """The proxy, the hub and TensorBoard. Secrets travel in the environment, never in a command line."""
    base = base_environment(os.environ)
    rules = Path(__file__).with_name("proxy_rules.cjs")
    node = [str(tools.node), "--max-old-space-size=64", "--optimize-for-size", f"--require={rules}", str(tools.proxy)]
    proxy = ["--no-x-forward", "--ip", settings.access.bind, "--port", str(settings.access.port)]
    proxy += [
        "--api-socket",
        str(lab.run / "proxy-api.sock"),
        "--error-target",
        f"{socket_url(lab.hub_socket)}/hub/error",
    ]
    hub = base | {
        "AILAB_LAB": str(lab.root),
        "AILAB_BUILD": __version__,
        "AILAB_WEB": f"{settings.access.bind}:{settings.access.port}",
        "AILAB_LANGUAGE": settings.lab.language,
        "CONFIGPROXY_AUTH_TOKEN": secrets["proxy-token"],
        "AILAB_SERVICE_TOKEN": secrets["service-token"],
        "JPY_COOKIE_SECRET": secrets["cookie-secret"],
    }
    config = Path(__file__).with_name("jupyterhub_config.py")
    folder = str(lab.hub)
    board = [str(tools.tensorboard), "-I", str(Path(__file__).with_name("tensorboard_server.py"))]
    board += [str(lab.run / "tensorboard.sock"), str(lab.logs), f"{PORTAL_PREFIX}tensorboard"]
    return [
        TaskSpec(
            id="proxy",
            name="proxy",
            kind=TaskKind.service,
            command=(*node, *proxy),
            environment=base
            | {
                "CONFIGPROXY_AUTH_TOKEN": secrets["proxy-token"],
                "AILAB_TRUSTED_PROXIES": ",".join(settings.access.trusted_proxies),
            },
            cwd=folder,
            ports=(settings.access.port, str(lab.run / "proxy-api.sock")),
            grace=3.0,
        ),
        TaskSpec(
            id="hub",
            name="hub",
            kind=TaskKind.service,
            command=(sys.executable, "-I", "-m", "ailab.access.hub", "--config", str(config)),
            environment=hub,
            cwd=folder,
            ports=(str(lab.hub_socket),),
        ),
        TaskSpec(
            id="tensorboard",
            name="tensorboard",
            kind=TaskKind.service,
            command=tuple(board),
            environment=base,
            cwd=folder,
            ports=(str(lab.run / "tensorboard.sock"),),
            grace=3.0,
        ),
    ]


def mlflow_spec(lab: LabPaths, python: Path) -> TaskSpec:
    """MLflow's server, by the Python of its own environment. It is reached through the portal, which asks for the
    login, and by the lab's tasks through its socket."""
    command = (str(python), "-I", str(Path(__file__).with_name("mlflow_server.py")))
    return TaskSpec(
        id="mlflow",
        name="mlflow",
        kind=TaskKind.extra,
        command=(*command, str(lab.mlflow_socket), str(lab.mlflow), MLFLOW_PREFIX),
        environment=base_environment(os.environ),
        cwd=str(lab.mlflow),
        ports=(str(lab.mlflow_socket),),
    )


def tracking_variables(settings: Settings, there: LabPaths) -> dict[str, str]:
    """What a task is told of MLflow, as it holds where the lab's files are at `there`. The address is the one that
    people open; a Python with ailab's client goes to the socket instead."""
    if not settings.tracking.mlflow:
        return {}
    return {
        "MLFLOW_TRACKING_URI": web_url(settings).rstrip("/") + MLFLOW_PREFIX,
        "AILAB_MLFLOW": str(there.mlflow_socket.parent),
    }


def workspace_spec(settings: Settings, lab: LabPaths, site: Site, user: str, variables: Mapping[str, str]) -> TaskSpec:
    """A person's Jupyter server, to run at `site`. Of `variables` it gets those that the hub makes for it: addresses,
    which become those that hold there, and a token."""
    there = site.lab
    socket = there.workspace_socket(user)
    ours = {
        "AILAB_LAB": str(there.root),
        "AILAB_LANGUAGE": settings.lab.language,
        "JUPYTER_PATH": str(there.state / "jupyter"),
        "JUPYTER_DATA_DIR": str(there.state / "jupyter-data"),
        "JUPYTER_CONFIG_DIR": str(there.state / "jupyter-config"),
        "JUPYTER_RUNTIME_DIR": str(there.run / "kernels"),
        "JUPYTERHUB_ROOT_DIR": str(there.root),
        "AILAB_PORTAL": str(there.portal_socket),
        "AILAB_LOGS": str(there.logs),
        "AILAB_MODELS": str(there.root / "models"),
        _LISTENS: f"{socket_url(socket)}{variables.get('JUPYTERHUB_SERVICE_PREFIX', '/')}",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **tracking_variables(settings, there),
    }
    if settings.tracking.mlflow:
        ours["AILAB_TRAININGS"] = str(there.trainings)
    # With the way to downloads: `pip install` in a notebook or a terminal goes where ailab's own go.
    environment = base_environment(os.environ) | downloads.variables(settings.mirrors, os.environ)
    resources = settings.resources
    gpus = None if resources.gpus == "all" else tuple(resources.gpus)
    return TaskSpec(
        id=f"workspace-{user}",
        name=f"workspace-{user}",
        kind=TaskKind.workspace,
        command=(site.python, "-I", "-m", "ailab.access.workspace", *_listens_at(socket)),
        environment=environment | _hubs_variables(variables, site) | ours,
        cwd=str(there.root),
        ports=(str(socket),),
        cpus=resources.cpus,
        memory_bytes=resources.memory,
        shm_bytes=resources.shm,
        pids=resources.pids,
        # Those of its own are given when it starts.
        gpus=() if resources.own_gpus else gpus,
    )


def _listens_at(path: Path) -> tuple[str, ...]:
    """Where a Jupyter server listens, as words of its command line: they come before people's own configuration, with
    whose port it would refuse the socket, and an image with an older ailab takes them."""
    return (f"--ServerApp.sock={path}", "--ServerApp.sock_mode=0660", f"--ServerApp.port={_NO_PORT}")


def _hubs_variables(variables: Mapping[str, str], site: Site) -> dict[str, str]:
    """Return the hub's variables for a server as they apply at `site`. The hub's address is replaced wherever the lab
    was at that time: the workspaces of a copied or moved lab must not call the other lab's hub."""
    there = socket_url(site.lab.hub_socket)
    hubs = {name: value for name, value in variables.items() if name.startswith(_HUBS)}
    return {name: _HUB_SOCKET.sub(lambda _found: there, value) for name, value in hubs.items()}
