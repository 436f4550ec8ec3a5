"""Images given on: what they are called, what registries refuse, and the file of an image."""

from __future__ import annotations

import io
import json
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ailab import engine, sharing
from ailab.errors import UsageError
from ailab.images import archive, progress, references, registry
from ailab.images.settings import host_settings, image_settings
from ailab.settings import ImageSection, Settings

DIGEST = "sha256:" + "ab" * 32
HERE = references.parse("registry.lan:5000/team/vision:autumn")


@pytest.mark.parametrize(
    ("text", "host", "path", "tag", "digest"),
    [
        ("vision", "", "vision", "", ""),
        ("team/vision:1.0", "", "team/vision", "1.0", ""),
        ("registry.lan:5000/team/vision:autumn", "registry.lan:5000", "team/vision", "autumn", ""),
        ("localhost/vision", "localhost", "vision", "", ""),
        ("registry:5000/vision", "registry:5000", "vision", "", ""),
        ("10.0.0.1:5000/a/b/c@" + DIGEST, "10.0.0.1:5000", "a/b/c", "", DIGEST),
        ("[fd00::1]:5000/vision:x", "[fd00::1]:5000", "vision", "x", ""),
        ("registry.lan/vision:x@" + DIGEST, "registry.lan", "vision", "x", DIGEST),
    ],
)
def test_a_name_has_parts(text: str, host: str, path: str, tag: str, digest: str) -> None:
    found = references.parse(text)
    assert found == references.Reference(host, path, tag, digest)
    assert references.parse(str(found)).repository == found.repository
    assert found.at(DIGEST) == f"{found.repository}@{DIGEST}"


@pytest.mark.parametrize(
    "text",
    ["", "Vision", "host/Team/x", "a b", "a:", "x@sha256:12", "-x", "../x", "x:" + "y" * 129, "http://h/x", "x\n"],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not an image's name"):
        references.parse(text)


# As Docker Engine 20.10 and 28, and Podman, have passed them on.
@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('Get "https://registry.lan:5000/v2/": x509: certificate signed by unknown authority', "does not trust"),
        ('Get "https://r/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority',
         "does not trust"),
        ("x509: certificate is valid for other.lan, not registry.lan", "of registry.lan:5000 does not hold"),
        ("x509: certificate has expired or is not yet valid: current time 2026-01-01", "not hold: certificate has"),
        ("http: server gave HTTP response to HTTPS client", "does not speak HTTPS"),
        ('Get "https://registry.lan:5000/v2/team/vision/manifests/autumn": no basic auth credentials', "let us in"),
        ("unauthorized: authentication required", "does not let us in"),
        ("denied: requested access to the resource is denied", "does not let us in"),
        ("pull access denied for x, repository does not exist or may require 'docker login'", "does not let us in"),
        ("dial tcp: lookup registry.lan on 10.0.0.1:53: no such host", "cannot be reached"),
        ("dial tcp 10.0.0.9:5000: connect: connection refused", "cannot be reached"),
        ("net/http: request canceled while waiting for connection (Client.Timeout exceeded)", "cannot be reached"),
        ("manifest for registry.lan:5000/team/vision:autumn not found: manifest unknown: manifest unknown", "has no"),
        ("name unknown: repository name not known to registry", "has no registry.lan:5000/team/vision:autumn"),
    ],
)  # fmt: skip
def test_what_a_registry_refuses_is_named_with_a_remedy(said: str, told: str) -> None:
    error = registry.explained(said, HERE, "/etc/ssl/team.pem")
    assert isinstance(error, registry.RegistryError)
    assert told in error.message and error.remedy and error.detail == said


def test_an_authority_is_given_to_the_engine_by_a_command_that_can_be_pasted() -> None:
    error = registry.explained("x509: certificate signed by unknown authority", HERE, "/etc/ssl/team.pem")
    assert error.remedy.endswith(
        "sudo install -D -m 644 /etc/ssl/team.pem /etc/docker/certs.d/registry.lan:5000/ca.crt"
    )


def test_what_is_the_engines_own_remains_so() -> None:
    full = registry.explained("write /var/lib/docker/tmp/x: no space left on device", HERE, "")
    assert isinstance(full, engine.EngineError) and "disk of the container engine is full" in full.message


@pytest.mark.filterwarnings("ignore:docker-credential-ailab-none not installed")
def test_who_we_are_to_a_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert registry.login("registry.lan", {}) == {}
    (tmp_path / "password").write_text("s3cret-word\n")
    asked = {"AILAB_REGISTRY_USER": "lin", "AILAB_REGISTRY_PASSWORD_FILE": str(tmp_path / "password")}
    assert registry.login("registry.lan", asked)["password"] == "s3cret-word"
    with pytest.raises(UsageError, match="cannot be read"):
        registry.login("registry.lan", asked | {"AILAB_REGISTRY_PASSWORD_FILE": str(tmp_path / "absent")})
    (tmp_path / "config.json").write_text('{"credHelpers": {"registry.lan": "ailab-none"}}')
    with pytest.raises(registry.RegistryError, match="cannot be read"):
        registry.login("registry.lan", {})


def test_progress_counts_layers_and_passes_on_what_is_noted() -> None:
    told: list[str] = []
    stream: list[dict[str, Any]] = [
        {"status": "The push refers to repository [registry.lan/x]"},
        {"status": "Preparing", "progressDetail": {}, "id": "a"},
        {"status": "Pushing", "progressDetail": {"current": 5_000_000, "total": 9_000_000}, "id": "a"},
        {"status": "Layer already exists", "progressDetail": {}, "id": "b"},
        {"status": "Pushed", "progressDetail": {}, "id": "a"},
        {"progressDetail": {}, "aux": {"Tag": "x", "Digest": DIGEST, "Size": 1}},
    ]
    assert progress.follow(stream, told.append)["Digest"] == DIGEST
    assert told[-1] == "2 of 2 layers, 5 MB"
    with pytest.raises(progress.Refused, match="denied"):
        progress.follow([{"errorDetail": {"message": "denied"}, "error": "denied"}], told.append)


def test_where_a_push_goes() -> None:
    with pytest.raises(UsageError, match="not said where"):
        sharing.push_name(Settings(), "")
    settings = Settings(image=ImageSection(registry="registry.lan:5000/team/"))
    assert str(sharing.push_name(settings, "")) == "registry.lan:5000/team/lab"
    assert str(sharing.push_name(settings, "other.lan/x:1")) == "other.lan/x:1"


ABOUT = archive.Description("0.1.0", DIGEST, ("ailab/lab:g",), "lab", "science", "g", "f" * 64)


def saved(*sizes: int) -> bytes:
    """What an engine would stream of an image."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for number, size in enumerate(sizes):
            info = tarfile.TarInfo(f"blobs/{number}")
            info.size = size
            made.addfile(info, io.BytesIO(bytes([number]) * size))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "blobs/0"
        made.addfile(link)
    return file.getvalue()


def written(data: bytes, chunk: int = 700) -> bytes:
    sink = io.BytesIO()
    archive.write(sink, (data[at : at + chunk] for at in range(0, len(data), chunk)), ABOUT, lambda _done: None)
    return sink.getvalue()


def test_a_file_is_read_as_it_was_written_and_any_tar_reads_it() -> None:
    file = written(saved(10, 0, 5000))
    found = archive.check(io.BytesIO(file), "file", lambda _done: None)
    assert (found.lab, found.names, found.lock) == (ABOUT.lab, ABOUT.names, ABOUT.lock)
    with tarfile.open(fileobj=io.BytesIO(file)) as read:
        assert read.getnames() == ["blobs/0", "blobs/1", "blobs/2", "link", "ailab-image.json"]
        content = read.extractfile("blobs/2")
        assert content is not None and content.read() == bytes([2]) * 5000


@given(st.data())
def test_no_file_that_was_cut_off_or_changed_is_taken(data: st.DataObject) -> None:
    file = written(saved(10, 3000))
    with tarfile.open(fileobj=io.BytesIO(file)) as read:
        described = read.getmember("ailab-image.json")
    end = described.offset_data + described.size
    cut = data.draw(st.integers(0, end - 1))
    with pytest.raises(archive.BadImageFile):
        archive.check(io.BytesIO(file[:cut]), "file", lambda _done: None)
    at = data.draw(st.integers(0, described.offset - 1))
    changed = bytearray(file)
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(archive.BadImageFile):
        archive.check(io.BytesIO(bytes(changed)), "file", lambda _done: None)


def test_a_file_of_a_newer_ailab_says_so() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        text = json.dumps({"format": 99, "ailab": "9.0"}).encode()
        info = tarfile.TarInfo("ailab-image.json")
        info.size = len(text)
        made.addfile(info, io.BytesIO(text))
    with pytest.raises(archive.BadImageFile, match=r"newer ailab \(9\.0\)"):
        archive.check(file, "file", lambda _done: None)


def test_a_lab_toml_comes_out_of_an_image_as_this_machine_can_use_it() -> None:
    text = '[lab]\nname = "vision"\n[environment]\nstack = "science"  # ours\n[mirrors]\npypi = "http://mirror"\n'
    out = host_settings(image_settings(text, gpu="off"))
    document = tomllib.loads(out)
    assert document["lab"] == {"name": "vision", "runtime": "docker"} and "access" not in document
    assert document["environment"]["gpu"] == "off" and "# ours" in out and "mirror" not in out


def test_an_image_cannot_ask_for_folders_of_the_machine_that_its_lab_comes_out_on() -> None:
    out = tomllib.loads(host_settings('[lab]\nname = "x"\n[mounts]\nall = "/"\n[access]\nbind = "0.0.0.0"\n'))
    assert out == {"lab": {"name": "x", "runtime": "docker"}}
