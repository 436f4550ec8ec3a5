"""The peer of `ailab image build`: the Dockerfile that people write, with the same packages in the same versions.

Both stand on the same Debian, and are given the same two Pythons. As ours, the peer has an environment of the lab's
packages, and one each for JupyterHub, TensorBoard, Node and MLflow: what they name does not go into one; all are made
by uv, with pip. The lab's packages come last, so that one package more leaves the other layers to the cache.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from ailab.images.builder import Builder, Work

NAME = "ailab-bench/peer"
UV = "/opt/python/control/uv venv -q --seed"
OWN = "/opt/python/control/pythons/python3.*/bin/python3.*"
ENVIRONMENTS = {"hub": "control.txt", "tensorboard": "tensorboard.txt", "node": "node.txt", "mlflow": "mlflow.txt"}
# The way to downloads that the building machine has, as in our own builds.
RUN = """\
RUN --mount=type=secret,id=downloads --mount=type=secret,id=ca \\
    set -a && . /run/secrets/downloads && if [ -s /run/secrets/ca ]; then \\
    SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca; fi \\
"""


class Peer:
    """A context in `folder`, of which an image is built again and again."""

    def __init__(self, folder: Path, ours: Path, builder: Builder, secrets: Mapping[str, Path]) -> None:
        """`ours` is the context of an image that ailab has built: the same base, Pythons, proxy and requirements."""
        self._builder = builder
        self._secrets = secrets
        self._context = folder
        self._context.mkdir(parents=True)
        control = [path for path in (ours / "requirements").rglob("*.txt") if path.name in ENVIRONMENTS.values()]
        for path in (*control, ours / "pythons.tar", ours / "proxy.tar"):
            shutil.copy2(path, self._context)
        debian = next(line for line in (ours / "Dockerfile").read_text().splitlines() if line.startswith("FROM "))
        made = [f"{UV} --python /opt/python/pythons/*/bin/python3.* /opt/environment"]
        made += [f"{UV} --python {OWN} /opt/{name}" for name in ENVIRONMENTS]
        installed = [f"/opt/{name}/bin/{_pip(requirements)}" for name, requirements in ENVIRONMENTS.items()]
        lines = [
            debian,
            "ADD pythons.tar /opt/python/",
            _run("export UV_CACHE_DIR=/tmp/uv", *made, "rm -rf /tmp/uv"),
            f"COPY {' '.join(ENVIRONMENTS.values())} /tmp/",
            _run(*installed),
            "ADD proxy.tar /opt/proxy/",
            "COPY requirements.txt /tmp/",
            _run(f"/opt/environment/bin/{_pip('requirements.txt')}"),
        ]
        (self._context / "Dockerfile").write_text("\n".join(lines) + "\n")

    def build(self, requirements: str) -> None:
        """The image with the lab's packages as `requirements`, a requirements.txt, names them."""
        (self._context / "requirements.txt").write_text(requirements)
        work = Work(self._context, "", [NAME], self._secrets, cache=self._context.parent)
        self._builder.build(work, lambda _text: None)


def _pip(requirements: str) -> str:
    return f"pip install --quiet --no-cache-dir --no-deps -r /tmp/{requirements}"


def _run(*steps: str) -> str:
    return RUN + "\n".join(f" && {step} \\" for step in steps).rstrip(" \\")
