"""requirements.txt and environment.yml: what becomes a package, and the reason of what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from ailab.environments import importing
from ailab.environments.build_needs import apt_packages
from ailab.environments.importing import Found, agree
from ailab.environments.wishes import with_packages
from ailab.errors import UsageError
from ailab.stacks import load_stack

TENSORFLOW = load_stack("tensorflow-2.9")


def read(path: Path, text: str | bytes) -> Found:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return importing.within(importing.read_packages(path), TENSORFLOW)


@pytest.mark.parametrize(
    ("line", "packages"),
    [
        ("seaborn", ["seaborn"]),
        ("seaborn == 0.12  # plots", ["seaborn==0.12"]),
        ("seaborn==0.12 --hash=sha256:ab \\\n  --hash=sha256:cd\nxgboost<3", ["seaborn==0.12", "xgboost<3"]),
        ("uvicorn[standard]>=0.20", ["uvicorn[standard]>=0.20"]),
        ('tomli ; python_version < "3.11"', ['tomli; python_version < "3.11"']),
        ("seaborn\r\nxgboost\r\n", ["seaborn", "xgboost"]),
        ("pandas<2", ["pandas<2"]),
        ("keras==2.9.0", ["keras==2.9.0"]),
    ],
)
def test_lines_that_become_packages(tmp_path: Path, line: str, packages: list[str]) -> None:
    found = read(tmp_path / "requirements.txt", line)
    assert (found.packages, found.left) == (packages, [])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("git+https://example.org/x", "address"),
        ("-e .", "address"),
        ("./wheels/x.whl", "address"),
        ("x @ https://example.org/x.whl", "address"),
        ("-r https://example.org/requirements.txt", "address"),
        ("-c constraints.txt", "bounds of its own"),
        ("--extra-index-url https://example.org/simple", "[mirrors] pypi"),
        ("--pre", "option of pip"),
        ("what is this", "not the name"),
        ("numpy==1.24.3", "the stack brings it: numpy==1.23.5"),
        ("tensorflow>=2.8", "the stack brings it: tensorflow==2.9.3"),
    ],
)
def test_lines_that_are_left_out_with_the_reason(tmp_path: Path, line: str, why: str) -> None:
    found = read(tmp_path / "requirements.txt", line)
    assert found.packages == [] and len(found.left) == 1
    assert why in found.left[0][1]


def test_a_version_that_a_bound_forbids_is_not_taken_over(tmp_path: Path) -> None:
    found = read(tmp_path / "requirements.txt", "transformers==4.40.0")
    assert found.packages == ["transformers"]
    assert "transformers<4.31: Newer ones import" in found.left[0][1]


def test_files_in_files(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/base.txt").write_text("-r again.txt\nxgboost\n")
    (tmp_path / "more/again.txt").write_text("seaborn\n")
    assert read(tmp_path / "requirements.txt", "-r more/base.txt").packages == ["seaborn", "xgboost"]
    with pytest.raises(UsageError, match="without end"):
        read(tmp_path / "requirements.txt", "-r requirements.txt")
    with pytest.raises(UsageError, match=r"gone\.txt cannot be read"):
        read(tmp_path / "requirements.txt", "-r gone.txt")


def test_what_windows_wrote(tmp_path: Path) -> None:
    assert read(tmp_path / "requirements.txt", "seaborn==0.12\r\n".encode("utf-16")).packages == ["seaborn==0.12"]
    with pytest.raises(UsageError, match="no text file"):
        read(tmp_path / "requirements.txt", b"\x89PNG\r\n\x00")


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    found = read(tmp_path / "requirements.txt", "-i https://me:secret@example.org/simple")
    assert "secret" not in str(found.left)


@pytest.mark.parametrize(
    ("match", "packages"),
    [
        ("seaborn", ["seaborn"]),
        ("seaborn=0.12", ["seaborn==0.12.*"]),
        ("seaborn==0.12.1", ["seaborn==0.12.1"]),
        ("seaborn=0.12.1=py39h1", ["seaborn==0.12.1"]),
        ("seaborn 0.12.*", ["seaborn==0.12.*"]),
        ("seaborn >=0.12,<1", ["seaborn<1,>=0.12"]),
        ("conda-forge::pytorch=2.1", ["torch==2.1.*"]),
        ("conda-forge/linux-64::seaborn", ["seaborn"]),
        ("lightgbm[version='>=3,<4']", ["lightgbm<4,>=3"]),
        ("librosa", ["librosa"]),
    ],
)
def test_conda_packages_that_pip_has(tmp_path: Path, match: str, packages: list[str]) -> None:
    found = read(tmp_path / "environment.yml", f'dependencies:\n  - "{match}"\n')
    assert (found.packages, found.left) == (packages, [])


@pytest.mark.parametrize(
    ("match", "why"),
    [
        ("python=3.9", "[environment] python"),
        ("cudatoolkit=11.2", "CUDA comes with the stack"),
        ("libgcc-ng", "apt-get"),
        ("_libgcc_mutex=0.1=main", "apt-get"),
        ("r-ggplot2", "apt-get"),
        ("ffmpeg", "apt-get"),
        ("pip", "installer"),
    ],
)
def test_conda_packages_that_pip_does_not_have(tmp_path: Path, match: str, why: str) -> None:
    found = read(tmp_path / "environment.yml", f"dependencies: [{match}]\n")
    assert found.packages == [] and why in found.left[0][1]


def test_an_environment_file_as_people_have_it(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("xgboost\n")
    text = "dependencies:\n- tqdm=4.66|4.67\n- pip:\n  - humanize==4.9\n  - -r more.txt\nvariables: {A: b}\n"
    found = read(tmp_path / "environment.yml", text)
    assert found.packages == ["tqdm", "humanize==4.9", "xgboost"]
    assert [what for what, _why in found.left] == ["tqdm=4.66|4.67", "variables"]


@pytest.mark.parametrize(
    "text", ["", "- a", "dependencies: {a: b}", "a: [", "dependencies: !!python/object:os.system x"]
)
def test_what_is_no_environment_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path / "environment.yml", text)
    assert "ailab env import FILE" in caught.value.remedy


@pytest.mark.parametrize(
    ("one", "two", "answer"),
    [
        ("==4.40", "<4.31", False),
        (">=2", "==1.23.5", False),
        (">=4.30", "<4.31", True),
        (">4.30", "<4.31", True),
        ("<1.5", "<2", True),
        ("==3.20.*", ">=3.19.6,<3.20", False),
        ("==3.19.*", ">=3.19.6,<3.20", True),
        ("~=1.4", "<2", True),
        ("", "<2", True),
    ],
)
def test_specifiers_that_agree(one: str, two: str, answer: bool) -> None:
    assert agree(SpecifierSet(one), SpecifierSet(two)) is answer


@pytest.mark.parametrize(
    ("said", "needs"),
    [
        ("error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory", ["build-essential"]),
        ("error: [Errno 2] No such file or directory: 'cmake'", ["cmake"]),
        ("/bin/sh: 1: mysql_config: not found", ["default-libmysqlclient-dev"]),
        ("x.c:3:10: fatal error: Python.h: No such file or directory", ["python3-dev"]),
        ("error: can't find Rust compiler", ["cargo"]),
        ("Error: pg_config executable not found.", ["libpq-dev"]),
        ("something else", ["build-essential"]),
    ],
)
def test_what_a_failed_build_asks_for(said: str, needs: list[str]) -> None:
    assert apt_packages(said) == needs


WRITTEN = """# top
[environment]
packages = [
    # plotting
    "seaborn",  # nice
    "xgboost<2",
]
gpu = "auto"  # as it is
"""


@pytest.mark.parametrize(
    ("packages", "lines"),
    [
        (["seaborn", "xgboost<2", "humanize"], ['    "humanize",']),
        (["seaborn", "xgboost<3"], ['    "xgboost<3",']),
        (["xgboost<2"], ['    "xgboost<2",']),
    ],
)
def test_the_text_of_lab_toml_keeps_its_comments(packages: list[str], lines: list[str]) -> None:
    import tomllib

    text = with_packages(WRITTEN, packages)
    assert tomllib.loads(text)["environment"]["packages"] == packages
    assert set(lines) <= set(text.splitlines())
    assert "    # plotting" in text and text.startswith("# top\n") and text.endswith('gpu = "auto"  # as it is\n')
    assert ("# nice" in text) == ("seaborn" in packages)


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("[lab]\n", '[lab]\n\n[environment]\npackages = ["a"]\n'),
        ("environment.packages = []\n", 'environment.packages = ["a"]\n'),
        ("environment = {packages = []}\n", 'environment = {packages = ["a"]}\n'),
        ("\ufeff[environment]\r\npackages = [] # c\r\n", '\ufeff[environment]\r\npackages = ["a"] # c\r\n'),
    ],
)
def test_each_way_to_write_it(text: str, after: str) -> None:
    assert with_packages(text, ["a"]) == after
