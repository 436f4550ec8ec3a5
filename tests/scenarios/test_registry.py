"""A lab's images through a real registry and in files, from one real engine to another that has nothing."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest
from conftest import UP_SECONDS, CommandLine, free_port, made_lab, reachable_folder
from engines import bridge_address, needs_engine, second_engine, unique_name
from image_base import pin_base
from registries import PASSWORD, USER, Registry, kept_store, make_authority, needs_registry, registry

from ailab import engine
from ailab.environments.lock import read_lock
from ailab.errors import Conflict
from ailab.images import readout
from ailab.images.naming import Labels
from ailab.settings_file import set_value
from ailab.waiting import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.root, needs_engine, needs_registry]
GENERATION = "science-py311-0a1b2c3d"
NAME = unique_name("shared")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with reachable_folder() as made:
        yield made


@pytest.fixture(scope="module")
def client() -> Any:
    return engine.connect()


@pytest.fixture(scope="module")
def lab(machine_home: Path) -> Iterator[CommandLine]:
    with made_lab(machine_home, "science") as line:
        set_value(line.paths.settings, "lab", "name", NAME)
        set_value(line.paths.settings, "tracking", "mlflow", False)
        pin_base(line)
        yield line


@pytest.fixture(scope="module")
def image(lab: CommandLine, client: Any) -> Iterator[str]:
    """An image as `image build` would name and label it, small: with the lab that it carries, and 3 MB that no
    compression makes smaller."""
    locked = read_lock(lab.paths.lock)
    assert locked is not None
    labels = Labels(NAME, "science", GENERATION, locked.digest(), "0.1.0")
    files = {"opt/ailab/lab/.ailab/secrets/cookie": b"mine", "opt/ailab/environment/generation.json": b"{}"}
    files |= {f"opt/ailab/lab/{path.name}": path.read_bytes() for path in (lab.paths.settings, lab.paths.lock)}
    name = make_image(client, f"ailab/{NAME}:{GENERATION}", labels, files | {"ballast": os.urandom(3_000_000)})
    yield name
    for one in client.api.images(filters={"label": f"org.ailab.lab={NAME}"}):
        client.api.remove_image(one["Id"], force=True)


def make_image(client: Any, name: str, labels: Labels, files: dict[str, bytes]) -> str:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    changes = [f'LABEL {key}="{value}"' for key, value in labels.to_labels().items()] + ['CMD ["true"]']
    repository, _colon, tag = name.rpartition(":")
    client.api.import_image_from_data(layer.getvalue(), repository=repository, tag=tag, changes=changes)
    return name


@pytest.fixture(scope="module")
def served(folder: Path, client: Any) -> Iterator[Registry]:
    """A registry that the engine trusts, at the engine's own bridge."""
    with registry(folder / "registry", bridge_address(client)) as one:
        one.trust()
        yield one


@pytest.fixture
def bare(folder: Path) -> Iterator[str]:
    """The address of an engine with an empty store."""
    with reachable_folder() as made, second_engine(made) as there:
        yield there


def known(line: CommandLine, **more: str) -> CommandLine:
    """The command line with a registry's user in its environment, and whatever else."""
    password = line.lab.parent / "password"
    password.write_text(f"{PASSWORD}\n")
    login = {"AILAB_REGISTRY_USER": USER, "AILAB_REGISTRY_PASSWORD_FILE": str(password)}
    return replace(line, environment=line.environment | login | more)


def test_pushed_by_digest_and_pulled_by_an_engine_that_has_nothing(
    lab: CommandLine, image: str, served: Registry, bare: str, client: Any
) -> None:
    settings = lab.paths.settings
    settings.write_text(settings.read_text().replace('registry = ""', f'registry = "{served.host}/team"'))
    pushed = known(lab).json("image", "push")
    repository, _at, digest = pushed["reference"].partition("@")
    assert repository == f"{served.host}/team/{NAME}" and digest.startswith("sha256:")
    assert pushed["generation"] == GENERATION and pushed["id"] == client.api.inspect_image(image)["Id"]

    there = known(lab, DOCKER_HOST=bare)
    pulled = json.loads(there.bare("image", "pull", pushed["reference"], "--json").stdout)
    assert {key: pulled[key] for key in ("id", "lab", "stack", "generation", "lock", "reference")} == {
        key: pushed[key] for key in ("id", "lab", "stack", "generation", "lock", "reference")
    }
    with closing(docker.DockerClient(base_url=bare, version="auto")) as second:
        seen = second.api.inspect_image(f"ailab/{NAME}:{GENERATION}")
    assert seen["Id"] == pushed["id"] and seen["RepoDigests"] == [pushed["reference"]]
    assert seen["RootFS"] == client.api.inspect_image(image)["RootFS"]
    by_tag = json.loads(there.bare("image", "pull", f"{repository}:{GENERATION}", "--json").stdout)
    assert by_tag["reference"] == pushed["reference"]

    # Another lab of this name may have images in this machine's engine.
    (row,) = [one for one in known(lab).json("image", "list") if one["id"] == pushed["id"]]
    assert row["pushed"] == [pushed["reference"]] and f"{repository}:{GENERATION}" in row["names"]
    text = lab.run("image", "list").stdout
    assert GENERATION in text and pushed["reference"] in text
    assert PASSWORD not in "".join(path.read_text() for path in lab.paths.state.glob("*.jsonl"))


def test_a_lab_comes_out_of_an_image_without_a_secret(lab: CommandLine, image: str, client: Any) -> None:
    carried = readout.read(client, image)
    assert sorted(carried.lab) == ["lab.lock", "lab.toml"] and carried.environment == "{}"
    assert carried.lab["lab.lock"].encode() == lab.paths.lock.read_bytes()
    bare = make_image(client, f"ailab/{NAME}:nothing", Labels("", "", "", "", ""), {"file": b"x"})
    with pytest.raises(Conflict, match="carries no lab"):
        readout.read(client, bare)
    client.images.remove(bare, force=True)


def test_what_was_pushed_is_known_when_the_engine_has_it_no_more(
    lab: CommandLine, image: str, served: Registry, bare: str
) -> None:
    pushed = known(lab).json("image", "push", f"{served.host}/team/kept:autumn")
    rows = known(lab, DOCKER_HOST=bare).json("image", "list")
    kept = [row for row in rows if row["pushed"] == [pushed["reference"]]]
    assert kept and kept[0]["id"] is None and kept[0]["generation"] == GENERATION


def test_a_login_that_docker_login_has_kept(lab: CommandLine, image: str, served: Registry, folder: Path) -> None:
    import base64

    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {served.host: {"auth": token}}}))
    (folder / "config.json").chmod(0o600)
    line = replace(lab, environment=lab.environment | {"DOCKER_CONFIG": str(folder)})
    assert line.json("image", "push", f"{served.host}/team/by-config")["reference"]


@pytest.mark.parametrize("login", [{}, {"AILAB_REGISTRY_USER": USER, "AILAB_REGISTRY_PASSWORD": "wrong-password"}])
def test_who_is_not_let_in_is_told_how_to_log_in(
    lab: CommandLine, image: str, served: Registry, login: dict[str, str]
) -> None:
    line = replace(lab, environment=lab.environment | login)
    for words in (("push", f"{served.host}/team/closed"), ("pull", f"{served.host}/team/{NAME}:{GENERATION}")):
        refused = line.run("image", *words, check=False)
        assert refused.returncode == 1 and f"{served.host} does not let us in" in refused.stderr, refused.stderr
        assert f"docker login {served.host}" in refused.stderr and "wrong-password" not in refused.stderr


def test_an_authority_that_is_not_trusted_is_told_with_the_command_that_trusts_it(
    lab: CommandLine, image: str, served: Registry, folder: Path
) -> None:
    (folder / "other").mkdir(exist_ok=True)
    make_authority(folder / "other/ca.pem", folder / "other/server.pem", served.host.rpartition(":")[0])
    line = known(lab, SSL_CERT_FILE=str(served.authority))
    served.trust(folder / "other/ca.pem")
    try:
        refused = line.run("image", "push", f"{served.host}/team/untrusted", check=False)
        assert refused.returncode == 1 and f"does not trust the certificate of {served.host}" in refused.stderr
        command = refused.stderr.partition("sudo ")[2].splitlines()[0]
        assert command.endswith(f"/etc/docker/certs.d/{served.host}/ca.crt"), refused.stderr
        subprocess.run(command.split(), check=True)
        assert line.json("image", "push", f"{served.host}/team/untrusted")["reference"]
    finally:
        served.trust()


def test_what_a_registry_does_not_have_and_one_that_is_not_there(lab: CommandLine, served: Registry) -> None:
    missing = known(lab).bare("image", "pull", f"{served.host}/team/{NAME}:nothing", check=False)
    assert missing.returncode == 1 and f"{served.host} has no {served.host}/team/{NAME}:nothing" in missing.stderr
    address = served.host.rpartition(":")[0]
    gone = known(lab).bare("image", "pull", f"{address}:1/team/lab", check=False)
    assert gone.returncode == 1 and f"{address}:1 cannot be reached" in gone.stderr
    unknown = known(lab).bare("image", "pull", "nowhere.invalid/team/lab", check=False)
    assert unknown.returncode == 1 and "nowhere.invalid cannot be reached" in unknown.stderr


def test_an_image_of_somebody_else_is_refused(lab: CommandLine, served: Registry, client: Any) -> None:
    name = make_image(client, f"{served.host}/team/other:1", Labels("", "", "", "", ""), {"file": b"x"})
    login = {"username": USER, "password": PASSWORD}
    try:
        assert "error" not in client.api.push(name, auth_config=login)
        refused = known(lab).bare("image", "pull", name, check=False)
        assert refused.returncode == 1 and "is not ailab's" in refused.stderr
    finally:
        client.images.remove(name, force=True)


def test_an_interrupted_push_leaves_nothing_and_the_next_one_goes_on(
    lab: CommandLine, served: Registry, client: Any, image: str
) -> None:
    labels = Labels(NAME, "science", f"{GENERATION}x", "0" * 64, "0.1.0")
    name = make_image(client, f"ailab/{NAME}:{GENERATION}x", labels, {"ballast": os.urandom(100_000_000)})
    line = known(lab)
    words = [str(line.program), "--lab", str(line.lab), "image", "push", f"{served.host}/team/large"]
    words += ["--generation", f"{GENERATION}x"]
    # Whoever runs the tests in the background (nohup) has interrupts ignored, and so would all that they start.
    listening = ["env", "--default-signal=INT", *words]
    try:
        with subprocess.Popen(listening, env=line.environment, stderr=subprocess.PIPE, text=True) as pushing:
            wait_for(lambda: served.is_given("team/large"), timeout=60, what="a push")
            with served.frozen():
                pushing.send_signal(signal.SIGINT)
                _out, said = pushing.communicate(timeout=30)
        assert pushing.returncode == 130 and "Interrupted" in said and "Traceback" not in said, said
        absent = line.bare("image", "pull", f"{served.host}/team/large:{GENERATION}x", check=False)
        assert "has no" in absent.stderr
        assert line.json(*words[3:], timeout=300)["generation"] == f"{GENERATION}x"
    finally:
        client.images.remove(name, force=True)
        client.images.remove(f"{served.host}/team/large:{GENERATION}x", force=True)


def test_in_a_file_to_an_engine_without_a_registry(
    lab: CommandLine, image: str, client: Any, folder: Path, bare: str
) -> None:
    file = folder / "lab.image"
    written = lab.json("image", "bundle", str(file))
    assert written["bytes"] == file.stat().st_size and written["generation"] == GENERATION
    again = lab.run("image", "bundle", str(file), check=False)
    assert again.returncode == 1 and "is there already" in again.stderr

    there = replace(lab, environment=lab.environment | {"DOCKER_HOST": bare})
    data = file.read_bytes()
    broken = {"cut": data[:-1_000_000], "none": b"", "changed": data[:1_000_000] + b"#" + data[1_000_001:]}
    with closing(docker.DockerClient(base_url=bare, version="auto")) as second:
        for kind, content in broken.items():
            (folder / kind).write_bytes(content)
            refused = there.bare("image", "load", str(folder / kind), check=False)
            assert refused.returncode == 1, refused.stderr
            assert ("changed or damaged" if kind == "changed" else "no whole image file") in refused.stderr
        assert second.api.images(all=True) == []
        loaded = json.loads(there.bare("image", "load", str(file), "--json").stdout)
        assert loaded["id"] == client.api.inspect_image(image)["Id"] and image in loaded["names"]
        second.images.remove(image)
    # The engine's own command takes it too.
    subprocess.run(["docker", "--host", bare, "load", "-i", file], check=True, capture_output=True)


def test_nothing_is_left_of_a_file_that_could_not_be_finished(lab: CommandLine, image: str, folder: Path) -> None:
    small = folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", small], check=True)
    try:
        full = lab.run("image", "bundle", str(small / "file"), check=False)
        assert full.returncode == 1 and "The disk is full" in full.stderr, full.stderr
        # Having given up root, the command may not remove what is in root's folder.
        assert [path.stat().st_size for path in small.iterdir()] in ([], [0])
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_full_store_is_named(lab: CommandLine, image: str, served: Registry, folder: Path, client: Any) -> None:
    labels = Labels(NAME, "science", f"{GENERATION}y", "0" * 64, "0.1.0")
    name = make_image(client, f"ailab/{NAME}:{GENERATION}y", labels, {"ballast": os.urandom(60_000_000)})
    file = folder / "large.image"
    try:
        lab.run("image", "bundle", str(file), "--generation", f"{GENERATION}y")
        pushed = known(lab).json("image", "push", f"{served.host}/team/full", "--generation", f"{GENERATION}y")
        with reachable_folder() as made, second_engine(made, megabytes=40) as there:
            line = known(lab, DOCKER_HOST=there)
            for words in (("pull", pushed["reference"]), ("load", str(file))):
                refused = line.bare("image", *words, check=False, timeout=300)
                assert refused.returncode == 1, refused.stderr
                assert "The disk of the container engine is full" in refused.stderr, refused.stderr
    finally:
        client.images.remove(name, force=True)
        client.images.remove(f"{served.host}/team/full:{GENERATION}y", force=True)


@pytest.fixture
def teammate(request: pytest.FixtureRequest, lab: CommandLine, folder: Path) -> Iterator[CommandLine]:
    """The command line of somebody else's lab: on the same engine, or on one of their own."""
    with reachable_folder() as place:
        address = request.getfixturevalue("bare") if request.param == "bare" else ""
        line = replace(known(lab, **({"DOCKER_HOST": address} if address else {})), lab=place / "lab")
        yield line
        line.run("down", check=False, timeout=120)


@pytest.mark.lab
@pytest.mark.parametrize("teammate", ["same", pytest.param("bare", marks=pytest.mark.long)], indirect=True)
def test_a_teammate_has_the_same_lab_from_the_registry_alone(
    lab: CommandLine, image: str, teammate: CommandLine, folder: Path, client: Any
) -> None:
    """The lab's own image, built and pushed; elsewhere a folder, an environment and a kernel that are all of it."""
    built = lab.json("image", "build", timeout=UP_SECONDS)
    assert lab.json("image", "verify", timeout=UP_SECONDS)["ok"]
    # Its layers stay in the engine while its names are gone.
    client.api.tag(built["id"], f"localhost/{NAME}", "layers")
    with registry(folder / "whole", bridge_address(client), kept_store()) as served:
        served.trust()
        words = ("image", "push", f"{served.host}/team/whole", "--generation", built["generation"])
        pushed = known(lab).json(*words, timeout=UP_SECONDS)
        for name in (*built["names"], f"{served.host}/team/whole:{built['generation']}"):
            client.images.remove(name, force=True)
        up = teammate.json("up", "--image", pushed["reference"], "--port", str(free_port()), timeout=UP_SECONDS)
        assert up["state"] == "ready" and up["environment"]["id"] == built["generation"]
        assert teammate.paths.lock.read_bytes() == lab.paths.lock.read_bytes()
        assert Path(up["lab"]["root"]) == teammate.lab
        verified = teammate.json("verify", timeout=300)
        assert verified["ok"] and verified["lab_lock"] and verified["lock"] == built["lock"]
        absent = teammate.run("env", "verify", check=False)
        assert absent.returncode == 1 and "in the image that the lab was made from" in absent.stderr
        again = teammate.run("up", "--image", pushed["reference"], timeout=UP_SECONDS)
        assert "The lab is ready" in again.stdout
