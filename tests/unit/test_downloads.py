"""Every key of [mirrors] reaches every tool that downloads: the real tools, asking servers on loopback."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CHECKOUT
from loopback import private_authority, serving

from ailab import command, downloads
from ailab.access import tools
from ailab.access.services import workspace_spec
from ailab.environments import interpreters, lock
from ailab.environments.generations import Generation, Generations
from ailab.environments.lock import Lock
from ailab.environments.uv import Uv
from ailab.errors import AilabError
from ailab.paths import LabPaths, MachinePaths
from ailab.runtimes.base import TaskKind
from ailab.runtimes.process import ProcessRuntime
from ailab.settings import MirrorsSection, Settings
from ailab.stacks import load_stack

STACK = load_stack("science")
SECONDS = 60
PACKAGE = "nothing-of-this-name"
# Each tool by its name: a call with keys of [mirrors].
Tools = dict[str, Callable[..., None]]
NOWHERE = "http://mirror.invalid/there"


@pytest.fixture(autouse=True)
def _a_shell_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in downloads.variables(MirrorsSection(), os.environ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def generation(tmp_path_factory: pytest.TempPathFactory) -> Generation:
    """An environment with pip in it, as every stack has."""
    machine = MachinePaths(tmp_path_factory.mktemp("machine"))
    uv, shipped = Uv(machine, MirrorsSection()), lock.read_lock(STACK.shipped_lock)
    assert shipped is not None
    pip = Lock("science", "test", (), tuple(one for one in shipped.packages if one.name == "pip"))
    kept = Generations(machine, LabPaths(machine.home / "lab"))
    return kept.build(STACK, pip, interpreters.find(STACK, "", uv), uv, lambda _text: None)[0]


@pytest.fixture(scope="module")
def node(own_machine: Path) -> Path:
    """The machine's Node, or the one that a lab of the tests has installed; else it is installed for them."""
    machine = MachinePaths(own_machine)
    found = tools.system_node() or tools._wheel_node(machine)
    if found is None:
        tools._environment(tools.node_folder(machine), "node.txt", Uv(machine, MirrorsSection()).run)
        found = tools._wheel_node(machine)
    assert found is not None
    return found


@pytest.fixture
def use(
    tmp_path: Path, generation: Generation, node: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Callable[..., None]]:
    """Each tool by its name: it is run as ailab runs it, and fails, since the server has nothing."""
    machine = MachinePaths(tmp_path / "machine")
    monkeypatch.setattr(Uv, "environment", lambda self, was=Uv.environment: was(self) | {"UV_HTTP_RETRIES": "0"})

    def packages(mirrors: MirrorsSection) -> None:
        Uv(machine, mirrors).run(
            "pip", "install", "--target", tmp_path / "target", "--python", generation.program, PACKAGE
        )

    def pythons(mirrors: MirrorsSection) -> None:
        Uv(machine, mirrors).run("python", "install", "--no-bin", "3.12")

    def npm(mirrors: MirrorsSection) -> None:
        environment = Uv(machine, mirrors).environment() | {"npm_config_fetch_retry_mintimeout": "1"}
        tools._install_proxy(machine, node, environment)

    def pip(mirrors: MirrorsSection) -> None:
        lab = LabPaths(tmp_path / "lab")
        site = ProcessRuntime(lab.tasks).site(TaskKind.workspace, lab)
        spec = workspace_spec(Settings(mirrors=mirrors), lab, site, "ada", {})
        words = [generation.program, "-m", "pip", "install", "--retries", "0", "--target", tmp_path / "target", PACKAGE]
        # Without this machine's own settings of pip, which would add to it.
        command.run(words, timeout=SECONDS, env=spec.environment | {"PIP_CONFIG_FILE": os.devnull})

    def failing(tool: Callable[[MirrorsSection], None]) -> Callable[..., None]:
        def run(**mirrors: str) -> None:
            with pytest.raises(AilabError):
                tool(MirrorsSection(**mirrors))

        return run

    return {"uv": failing(packages), "uv python": failing(pythons), "npm": failing(npm), "pip": failing(pip)}


KEYS = {"uv": "pypi", "uv python": "python", "npm": "npm", "pip": "pypi"}


@pytest.mark.parametrize("tool", KEYS)
def test_a_tool_asks_the_mirror_and_nobody_else(use: Tools, tool: str) -> None:
    asked: list[str] = []
    with serving(status=404, asked=asked) as address:
        # Who went past the mirror would have to take this way.
        use[tool](**{KEYS[tool]: f"{address}/there"}, proxy="http://127.0.0.1:9")
    assert asked and all(path.startswith("/there/") for path in asked)


@pytest.mark.parametrize("tool", KEYS)
def test_a_tool_goes_through_the_proxy(use: Tools, tool: str) -> None:
    asked: list[str] = []
    with serving(status=404, asked=asked) as address:
        use[tool](**{KEYS[tool]: NOWHERE}, proxy=address)
    assert asked and all("mirror.invalid" in one for one in asked)


@pytest.mark.parametrize("tool", KEYS)
def test_a_tool_trusts_the_authority_of_the_lab_alone(use: Tools, tool: str, tmp_path: Path) -> None:
    server, authority = private_authority(tmp_path)
    asked: list[str] = []
    with serving(status=404, certificate=server, asked=asked) as address:
        use[tool](**{KEYS[tool]: address})
        assert asked == [], "it must not speak to whom it does not trust"
        use[tool](**{KEYS[tool]: address}, ca_bundle=str(authority))
    assert asked


def test_lab_toml_stands_before_the_shell_and_the_shell_before_nothing() -> None:
    shell = {"UV_INDEX_URL": "http://b/simple", "PIP_INDEX_URL": "http://c/simple", "SSL_CERT_FILE": "/x.pem"}
    shell |= {"https_proxy": "http://p:1", "PIP_EXTRA_INDEX_URL": "http://d", "SECRET": "x"}
    theirs = downloads.variables(MirrorsSection(), shell)
    assert downloads.index(MirrorsSection(), shell) == theirs["UV_DEFAULT_INDEX"] == "http://b/simple"
    assert theirs["PIP_INDEX_URL"] == "http://c/simple" and theirs["NODE_EXTRA_CA_CERTS"] == "/x.pem"
    additional = downloads.variables(MirrorsSection(), {"NODE_EXTRA_CA_CERTS": "/more.pem"})
    assert additional == {"NODE_EXTRA_CA_CERTS": "/more.pem"}, "it stands beside the public authorities, not for them"
    assert theirs["https_proxy"] == "http://p:1" and not theirs.keys() & {"NO_PROXY", "PIP_EXTRA_INDEX_URL", "SECRET"}
    ours = downloads.variables(MirrorsSection(pypi="http://a/simple", proxy="http://q:1"), shell)
    assert {ours[name] for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")} == {"http://a/simple"}
    assert ours["https_proxy"] == ours["HTTP_PROXY"] == "http://q:1" and "127.0.0.1" in ours["no_proxy"].split(",")
    assert downloads.variables(MirrorsSection(), {}) == {}


def test_an_extra_index_of_the_shell_does_not_stand_beside_the_lab_s_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_INDEX", "http://extra/simple")
    machine = MachinePaths(Path("/nowhere"))
    assert Uv(machine, MirrorsSection()).environment()["UV_INDEX"] == "http://extra/simple"
    assert "UV_INDEX" not in Uv(machine, MirrorsSection(pypi="http://a/simple")).environment()


@pytest.mark.parametrize("with_uv", [False, True], ids=["pip, for uv", "uv, for the rest"])
def test_the_launcher_asks_its_mirror_and_trusts_its_authority(tmp_path: Path, with_uv: bool) -> None:
    home, uv = tmp_path / "home", Uv(MachinePaths(tmp_path), MirrorsSection()).program
    digits = subprocess.check_output(["cksum"], input=(CHECKOUT / "requirements/uv.txt").read_bytes()).split()[0]
    if with_uv:
        place = home / f"control/uv-{digits.decode()}/bin"
        place.mkdir(parents=True)
        (place / "uv").symlink_to(uv)
    server, authority = private_authority(tmp_path)
    asked: list[str] = []
    with serving(status=404, certificate=server, asked=asked) as address:
        shell = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AILAB_HOME": str(home), "AILAB_LANG": "en"}
        shell |= {
            "AILAB_PYPI": f"{address}/there",
            "UV_HTTP_RETRIES": "0",
            "PIP_RETRIES": "0",
            "PIP_CONFIG_FILE": os.devnull,
        }
        words = [CHECKOUT / "ailab", "--version"]
        for authorities in ({}, {"SSL_CERT_FILE": str(authority)}):
            assert asked == []
            done = subprocess.run(words, env=shell | authorities, capture_output=True, text=True, timeout=SECONDS)
            assert done.returncode == 1 and "AILAB_PYPI" in done.stderr, done.stdout + done.stderr
    assert asked and all(path.startswith("/there/") for path in asked)
    assert not (home / "control/current").exists()
