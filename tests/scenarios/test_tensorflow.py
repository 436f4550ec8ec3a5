"""TensorFlow 2.9 in a lab, as a newcomer meets it: README's commands, the browser, the welcome notebook."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import pytest
import websocket
from browser import first_visit, needs_chromium
from conftest import CHECKOUT, UP_SECONDS, CommandLine
from engines import needs_engine
from jupyter_server.gateway.gateway_client import GatewayClient
from jupyter_server.gateway.managers import GatewayKernelManager
from nbclient import NotebookClient

from ailab.access.secret_files import secret
from ailab.notebooks import welcome
from ailab.settings_file import load_settings

pytestmark = [pytest.mark.lab, pytest.mark.tensorflow]
READMES = ["README.md", "README.zh-CN.md"]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
VERSION_CELL = "import tensorflow as tf; tf.__version__"


def blocks(readme: str, kind: str) -> list[str]:
    text = (CHECKOUT / readme).read_text(encoding="utf-8")
    return [body for of, body in _BLOCK.findall(text) if of == kind]


def test_a_browser_sees_tensorflow_2_9(tensorflow_up: tuple[CommandLine, Any]) -> None:
    tensorflow, document = tensorflow_up
    tensorflow.up()
    assert document["verified"]["tensorflow"].startswith("2.9.")
    if needs_chromium.args[0]:
        pytest.skip(needs_chromium.kwargs["reason"])
    login = document["login"]
    first_visit(document["url"], login["user"], login["password"], VERSION_CELL, "'2.9.", "tensorflow")


def commands(readme: str) -> tuple[list[str], list[str]]:
    """What README has one type, without and with a container engine, in its order."""
    lines = [line.removeprefix("$ ./ailab ") for block in blocks(readme, "console") for line in block.splitlines()]
    plain = [line for line in lines if not line.startswith("image ")]
    return plain, lines[len(plain) :]


def typed(lab: CommandLine, words: list[str]) -> dict[str, str]:
    return {line: lab.bare(*line.split(), cwd=lab.lab, timeout=UP_SECONDS).stdout for line in words}


@pytest.mark.parametrize("readme", READMES)
def test_the_commands_of_the_readme_do_what_it_says(tensorflow: CommandLine, readme: str) -> None:
    plain, _images = commands(readme)
    assert plain[0] == "up" and plain[-1] == "down" and len(plain) >= 5
    said = typed(tensorflow, plain)
    assert "http://127.0.0.1:" in said["up"] and "2.9." in said["up"]
    assert "TensorFlow 2.9." in said["verify"] and "[[1. 3.]\n [3. 7.]]" in said["verify"]
    assert "/hub/login-link?code=" in said["open --no-browser"]


@pytest.mark.docker
@needs_engine
@pytest.mark.parametrize("readme", READMES)
def test_the_image_commands_of_the_readme_do_what_it_says(tensorflow: CommandLine, readme: str) -> None:
    _plain, images = commands(readme)
    assert images == ["image build", "image run-command"]
    said = typed(tensorflow, images)
    assert said["image run-command"].startswith("docker run ") and " --read-only" in said["image run-command"]


@pytest.mark.parametrize("readme", READMES)
def test_the_settings_in_the_readme_are_settings(tmp_path: Path, readme: str) -> None:
    found = blocks(readme, "toml")
    assert found
    for number, block in enumerate(found):
        path = tmp_path / f"{number}.toml"
        path.write_text(block, encoding="utf-8")
        load_settings(path)


@pytest.fixture
def gateway(tensorflow: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Jupyter's client for kernels elsewhere, pointed at a workspace by the public door.

    Its WebSocket sends no token, so that is added here.
    """
    user, token = tensorflow.up()["login"]["user"], secret(tensorflow.paths, "service-token")
    connect = partial(websocket.create_connection, header=[f"Authorization: token {token}"])
    monkeypatch.setattr(websocket, "create_connection", connect)
    GatewayClient.clear_instance()
    there = GatewayClient.instance()
    host, port = tensorflow.web
    there.url, there.auth_token = f"http://{host}:{port}/user/{user}", token
    yield
    GatewayClient.clear_instance()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_welcome_notebook_runs_top_to_bottom_through_the_hub(
    tensorflow: CommandLine, gateway: None, language: str
) -> None:
    notebook = nbformat.read(welcome("tensorflow-2.9", language), as_version=4)
    NotebookClient(notebook, km=GatewayKernelManager(), timeout=300).execute()
    text = "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )
    assert "TensorFlow 2.9." in text and "[[1. 3.]\n [3. 7.]]" in text and "same answers: True" in text
    assert list(tensorflow.paths.logs.glob("welcome/**/events.out.tfevents.*"))
    assert (tensorflow.lab / "models/welcome/saved_model.pb").is_file()
