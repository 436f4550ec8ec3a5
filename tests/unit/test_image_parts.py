"""What goes into an image: the Dockerfile, its context, the lab's settings within, and the command that runs it."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from ailab import dpkg
from ailab.command import CommandFailed, Finished
from ailab.images import apt, base, context, naming, pulled_base, run_command, shelf, steps
from ailab.images.dockerfile import Recipe, Tool
from ailab.images.settings import image_settings
from ailab.settings import Mount, Settings
from ailab.settings_file import settings_from

HOME = Path("/opt/ailab")
RECIPE = Recipe(
    lab="vision",
    base="localhost/ailab-base:0123",
    python=HOME / "pythons/3.10.13/bin/python3.10",
    own_python=HOME / "control/pythons/python3.11/bin/python3.11",
    tools=(
        Tool("control.txt", HOME / "control/current"),
        Tool("tensorboard.txt", HOME / "tools/tensorboard-1", ("share",)),
    ),
    proxy=HOME / "tools/proxy-1",
    marks={HOME / "tools/proxy-1/node": "it's here"},
    packages=True,
)
LABELS = naming.Labels("my lab", "tensorflow-2.9", "tensorflow-2.9-py310-1", "abc", "0.1.0", "def")


def test_layers_come_in_the_order_in_which_they_change() -> None:
    text = RECIPE.render(LABELS.to_labels())
    order = [
        "FROM localhost/ailab-base:0123",
        "pythons.tar",
        "FROM bottom AS fetched",
        "FROM bottom\n",
        "/opt/ailab/environment /opt/ailab/image/requirements/framework",
        "/opt/ailab/environment /opt/ailab/image/requirements/stack",
        "COPY --from=fetched",
        "proxy.tar",
        "COPY ailab",
        "lab.txt",
        "COPY lab",
        "USER",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "USER 1000:1000" in text and "VOLUME /lab" in text and "HEALTHCHECK" in text
    assert '"up", "--foreground"' in text and 'LABEL org.ailab.lab="my lab"' in text


def test_of_steps_that_run_side_by_side_the_one_that_failed_is_told() -> None:
    following = steps.Steps(steps.BUILDKIT, lambda _text: None)
    for line in (
        "#7 [control  2/13] RUN --mount=type=cache install control.txt",
        "#8 [ 2/19] RUN --mount=type=cache install stack.txt",
        "#7 1.1 something is amiss",
        "#8 1.2 Downloading tensorflow",
        "#7 ERROR: process did not complete successfully: exit code: 1",
    ):
        following.read(line)
    failed = following.failure(CommandFailed("failed", finished=Finished(("docker",), 1, "", "")))
    assert "2/13" in failed.message and failed.detail == "something is amiss"


def test_nothing_that_a_20_10_engine_cannot_read() -> None:
    text = RECIPE.render({})
    assert "# syntax" not in text and "COPY --link" not in text and "<<" not in text
    for block in text.split("\nRUN ")[1:]:
        assert "type=secret,id=downloads" in block and "mode=0755" in block


def test_apt_packages_are_pinned_and_wheels_of_a_bundle_are_used() -> None:
    text = replace(RECIPE, apt={"tree": "2.1.0-1"}, wheels=True).render({})
    assert "/image/apt tree=2.1.0-1" in text and "source=wheels" in text
    assert "/image/apt" not in RECIPE.render({}) and "source=wheels" not in RECIPE.render({})


def test_a_lab_without_packages_of_its_own_has_no_layer_for_them() -> None:
    text = replace(RECIPE, packages=False).render({})
    assert "lab.txt" not in text and "COPY lab " in text


def content(make: str = "one", key: str = "k") -> context.Content:
    def fill(folder: Path) -> None:
        (folder / "bin").mkdir()
        (folder / "bin/program").write_text(make)
        (folder / "bin/program").chmod(0o700)
        (folder / "bin/link").symlink_to("program")

    return context.Content({"lab/lab.toml": "x = 1\n"}, {}, {"programs.tar": context.Packed(key, fill)})


def test_a_context_is_the_same_whenever_it_is_written(tmp_path: Path) -> None:
    for name in ("one", "two", "one"):
        context.write(tmp_path / name, content())
    assert (tmp_path / "one/programs.tar").read_bytes() == (tmp_path / "two/programs.tar").read_bytes()
    with tarfile.open(tmp_path / "one/programs.tar") as archive:
        members = {member.name: member for member in archive}
    assert (members["bin/program"].mode, members["bin/program"].uid, members["bin/program"].uname) == (0o755, 0, "")
    assert members["bin/link"].linkname == "program"
    assert (tmp_path / "one/build/install").stat().st_mode & 0o777 == 0o755


def test_a_context_changes_with_what_goes_in_and_loses_what_does_not(tmp_path: Path) -> None:
    context.write(tmp_path / "one", content())
    (tmp_path / "one/left.txt").write_text("of an older build")
    other = content(key="other")
    assert context.digest_of(content()) == context.digest_of(content()) != context.digest_of(other)
    context.write(tmp_path / "one", other)
    assert not (tmp_path / "one/left.txt").exists()


def test_the_settings_in_an_image_are_the_labs_without_its_machines(tmp_path: Path) -> None:
    text = (
        '# ours\n[lab]\nname = "vision"\nlanguage = "zh"\n[environment]\npython = "/opt/py/bin/python3.10"\n'
        'packages = ["tabulate"]\n[resources]\ncpus = 4\nmemory = "8g"\n[access]\nport = 9000\n'
        '[mirrors]\npypi = "https://user:secret@mirror.example/simple"\n'
    )
    settings = settings_from(tmp_path / "lab.toml", image_settings(text, gpu="off"))
    assert settings.lab.name == "vision" and settings.lab.language == "zh"
    assert settings.environment.packages == ["tabulate"] and settings.environment.python == ""
    assert settings.environment.gpu == "off"
    assert (settings.access.bind, settings.access.port) == ("0.0.0.0", 8888)
    assert settings.resources == Settings().resources and settings.mirrors == Settings().mirrors
    assert "secret" not in image_settings(text, gpu="off") and "# ours" in image_settings(text, gpu="off")


@pytest.mark.parametrize(
    ("lab", "registry", "name"),
    [
        ("Vision Lab", "", "ailab/vision-lab"),
        ("实验室", "", "ailab/lab"),
        ("a_b.c", "host:5000/team/", "host:5000/team/a-b-c"),
    ],
)
def test_names_of_images(lab: str, registry: str, name: str) -> None:
    assert naming.repository(lab, registry) == name


def test_labels_are_read_back_and_others_are_not_ours() -> None:
    assert naming.Labels.read(LABELS.to_labels()) == LABELS
    assert naming.Labels.read({"maintainer": "somebody"}) is None
    assert naming.Labels.read(None) is None


def test_the_command_has_the_labs_limits_port_and_folders() -> None:
    settings = Settings.model_validate(
        {"resources": {"cpus": 2, "memory": "1.5g", "gpus": ["0", "1"]}, "access": {"bind": "::1", "port": 9000}}
    )
    groups = run_command.words(
        settings,
        "ailab-vision",
        "ailab/vision:latest",
        (7, 8),
        {"notebooks": Mount(path="/a b/notebooks"), "data": Mount(path="/data", read_only=True)},
        gpus=True,
    )
    words = [word for group in groups for word in group]
    for pair in (
        ("--user", "7:8"), ("--memory", "1536m"), ("--memory-swap", "1536m"), ("--cpus", "2"), 
        ("--gpus", '"device=0,1"'), ("--volume", "/data:/lab/data:ro"), ("--shm-size", "2048m"),
        ("--publish", "[::1]:9000:8888"), ("--volume", "/a b/notebooks:/lab/notebooks"), ("--cap-drop", "ALL"),
    ):  # fmt: skip
        assert any(pair == following for following in pairwise(words)), pair
    assert "'/a b/notebooks:/lab/notebooks'" in run_command.text(groups)
    bare = run_command.words(Settings(), "n", "i", (7, 8), {}, gpus=False)
    assert not {"--memory", "--cpus", "--gpus"} & {word for group in bare for word in group}


LINES = """#9 [3/9] RUN   --mount=type=cache,id=ailab-uv     /opt/ailab/image/install
#9 0.311 Using Python 3.10.13
#9 1.204   × No solution found when resolving dependencies:
#9 1.204   ╰─▶ Because there is no version of absl-py==0.0.77 and you require absl-py==0.0.77, we can conclude that
#9 1.204       your requirements are unsatisfiable.
#9 ERROR: executor failed running""".splitlines()


BUILDAH_LINES = [
    "STEP 3/9: RUN --mount=type=cache,id=ailab-uv /opt/ailab/image/sync",
    *(line.partition(" ")[2].partition(" ")[2] for line in LINES[1:-1]),
    "subprocess exited with status 1",
    'Error: building at STEP "RUN /opt/ailab/image/sync": exit status 1',
]


@pytest.mark.parametrize(("dialect", "lines"), [(steps.BUILDKIT, LINES), (steps.BUILDAH, BUILDAH_LINES)])
def test_a_step_that_fails_is_told_with_what_it_printed(dialect: steps.Dialect, lines: list[str]) -> None:
    told: list[str] = []
    following = steps.Steps(dialect, told.append)
    for line in lines:
        following.read(line)
    assert told[0] == "3/9 RUN" and "3/9" in told[1]
    failed = following.failure(CommandFailed("docker build failed", finished=Finished(("docker",), 1, "", "")))
    assert "absl-py" in failed.message + failed.detail and "#9" not in failed.detail
    assert "exit status" not in failed.detail and "subprocess" not in failed.detail


FULL = "failed to copy: write /var/lib/docker/x: no space left on device"


@pytest.mark.parametrize(
    ("lines", "output"),
    [
        (["#9 [3/9] RUN sync", "#9 2.5 error: Failed to write: No space left on device (os error 28)"], ""),
        (["#9 [3/9] RUN sync", "#9 2.5  + nodejs==1"], f"#9 2.5  + nodejs==1\nERROR: failed to solve: {FULL}"),
    ],
    ids=["the step says it", "the builder says it"],
)
def test_a_full_disk_is_told(lines: list[str], output: str) -> None:
    following = steps.Steps(steps.BUILDKIT, lambda _text: None)
    for line in lines:
        following.read(line)
    failed = following.failure(CommandFailed("failed", finished=Finished(("docker",), 1, output, "")))
    assert "disk" in failed.message and "docker system df" in failed.remedy
    assert "o space left on device" in failed.detail


def test_a_pinned_debian_package_that_the_mirror_has_no_more_is_named() -> None:
    following = steps.Steps(steps.BUILDAH, lambda _text: None)
    for line in ("STEP 2/9: RUN apt", "Reading state...", "E: Version '0.18' for 'tini' was not found"):
        following.read(line)
    failed = following.failure(CommandFailed("failed", finished=Finished(("buildah",), 1, "", "")))
    assert "tini=0.18" in failed.message and "image base" in failed.remedy


def test_the_image_that_has_the_name_is_the_newest_whatever_time_its_builder_notes() -> None:
    older = {"Id": "a", "RepoTags": ["<none>:<none>"], "Created": 2}
    newer = {"Id": "b", "RepoTags": ["ailab/lab:latest"], "Created": 1}
    assert shelf.newest([older, newer]) == newer == shelf.newest([newer, older, older | {"RepoTags": None}])


def test_what_apt_would_install_is_read_from_its_simulation() -> None:
    said = """Reading package lists...
Inst libc6 [2.36-9] (2.36-9+deb12u9 Debian:12.7/stable [amd64])
Inst tini (0.19.0-1 Debian:12.1/stable [amd64])
Conf tini (0.19.0-1 Debian:12.1/stable [amd64])
"""
    assert dict(apt._INSTALLED.findall(said)) == {"libc6": "2.36-9+deb12u9", "tini": "0.19.0-1"}


@pytest.mark.parametrize(
    "said",
    [
        "E: Unable to locate package graphwiz",
        "E: Package 'graphwiz' has no installation candidate",
        "E: Unable to locate package graphwiz\nE: Couldn't find any package by glob 'graphwiz'",
    ],
)
def test_a_debian_package_that_there_is_not_is_named(said: str) -> None:
    refused = apt._refusal(f"Reading package lists...\n{said}\n")
    assert isinstance(refused, apt.UnknownPackage) and "graphwiz" in refused.message + refused.remedy


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("debian", "docker.io/library/debian:latest"),
        ("debian:bookworm-slim", "docker.io/library/debian:bookworm-slim"),
        ("team/base", "docker.io/team/base:latest"),
        ("host:5000/debian:12", "host:5000/debian:12"),
    ],
)
def test_a_base_goes_by_its_full_name(text: str, full: str) -> None:
    assert str(pulled_base.named(text)) == full == str(pulled_base.named(full))


@pytest.mark.parametrize(
    ("libc", "release"),
    [("2.31", "bookworm"), ("2.36", "bookworm"), ("2.39", "trixie"), ("2.41", "trixie"), ("3.0", "trixie")],
)
def test_a_base_is_as_new_as_the_machine_whose_pythons_it_runs(
    libc: str, release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert base.suite(libc) == release
    monkeypatch.setattr(base.platform, "libc_ver", lambda: ("glibc", libc))
    assert str(pulled_base.default()) == f"docker.io/library/debian:{release}-slim"
    assert any(f"debian {release} main" in word for word in base._options())


def test_the_packages_of_a_base_are_read_from_its_tar(tmp_path: Path) -> None:
    status = "Package: adduser\nStatus: install ok installed\nVersion: 3.134\n\n"
    status += "Package: apt\nStatus: hold ok installed\nVersion: 2.6.1\n\n"
    status += "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n"
    with tarfile.open(tmp_path / "base.tar", "w") as archive:
        info = tarfile.TarInfo("./var/lib/dpkg/status")
        info.size = len(status)
        archive.addfile(info, io.BytesIO(status.encode()))
    assert base.packages_in(tmp_path / "base.tar") == {"adduser": "3.134", "apt": "2.6.1"}
    assert dpkg.missing(["tree", "apt"], status) == ("tree",) and dpkg.missing(["tree"], "") == ()
