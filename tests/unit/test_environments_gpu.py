"""CUDA in a generation: links that hold, what each Python is told, and the links of the chain that are named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ailab.environments import ailab_cuda, cuda, gpu, installed
from ailab.environments.gpu import State
from ailab.i18n import use_language
from ailab.stacks import load_stack

STACK = load_stack("tensorflow-2.9")
ALIASES = STACK.cuda.aliases if STACK.cuda is not None else {}
BUILT_FOR = ["sm_35", "sm_50", "sm_60", "sm_70", "sm_75", "compute_80"]


@pytest.fixture(autouse=True)
def english() -> None:
    use_language("en")


@pytest.fixture
def generation(tmp_path: Path) -> Path:
    """A generation's folder with files where the real wheels have them."""
    site = tmp_path / "generations/one/lib/python3.10/site-packages"
    for name in ("tensorflow/libtensorflow_framework.so.2", "nvidia/cudnn/lib/libcudnn.so.8",
                 "nvidia/cuda_cupti/lib/libcupti.so.11.8", "nvidia/cuda_nvcc/bin/ptxas"):  # fmt: skip
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(name)
    return tmp_path / "generations/one"


def test_the_group_is_whole_or_not_there() -> None:
    assert STACK.cuda is not None and len(STACK.cuda.libraries) == 8
    names = {package.partition("==")[0] for package in STACK.cuda.packages}
    assert cuda.is_among(STACK, {*names, "numpy"})
    assert not cuda.is_among(STACK, names - {"nvidia-cudnn-cu11"})
    assert not cuda.is_among(load_stack("science"), names)


def test_libraries_are_linked_beside_tensorflow_s_own_and_the_folder_may_move(generation: Path, tmp_path: Path) -> None:
    cuda.install(generation, ALIASES, tmp_path / "cache")
    cuda.install(generation, ALIASES, tmp_path / "cache")
    moved = generation.rename(tmp_path / "moved")
    beside = installed.site_packages(moved) / "tensorflow"
    assert (beside / "libcudnn.so.8").read_text() == "nvidia/cudnn/lib/libcudnn.so.8"
    assert (beside / "libcupti.so.11.2").read_text() == (beside / "libcupti.so.11.8").read_text()
    assert len(list(beside.iterdir())) == 4


def test_the_driver_s_library_has_its_short_name_wherever_it_is_now(generation: Path, tmp_path: Path) -> None:
    link = installed.site_packages(generation) / "tensorflow/libcuda.so"
    cuda.link_driver(generation, "")
    assert not link.is_symlink()
    for place in ("one", "two"):
        cuda.link_driver(generation, str(tmp_path / place / "libcuda.so.1"))
        assert link.readlink() == tmp_path / place / "libcuda.so.1"


def told(site: Path, **environment: str) -> dict[str, str]:
    """The environment of a Python that starts with `site` as a site folder, as a generation's does."""
    code = f"import os, site, json; site.addsitedir({str(site)!r}); print(json.dumps(dict(os.environ)))"
    words = [sys.executable, "-I", "-c", code]
    done = subprocess.run(words, env={"PATH": "/usr/bin", **environment}, capture_output=True, text=True, check=True)
    assert not done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_each_python_knows_where_xla_and_the_cache_are(generation: Path, tmp_path: Path) -> None:
    cache = tmp_path / "it's a cache"
    cuda.install(generation, ALIASES, cache)
    site = installed.site_packages(generation)
    found = told(site)
    assert found["XLA_FLAGS"] == f"--xla_gpu_cuda_data_dir={site}/nvidia/cuda_nvcc"
    assert shutil.which("ptxas", os.F_OK, found["PATH"]) == str(site / "nvidia/cuda_nvcc/bin/ptxas")
    assert found["CUDA_CACHE_PATH"] == str(cache) and cache.is_dir()
    assert int(found["CUDA_CACHE_MAXSIZE"]) == 4 * 1024**3
    again = told(site, **found)
    assert again == found, "a child of it is told nothing twice"


def test_what_a_person_has_set_stays(generation: Path, tmp_path: Path) -> None:
    cuda.install(generation, ALIASES, tmp_path / "cache")
    site = installed.site_packages(generation)
    own = {"CUDA_CACHE_PATH": "/mine", "CUDA_CACHE_MAXSIZE": "1"}
    found = told(site, XLA_FLAGS="--xla_dump_to=/x", **own)
    assert {name: found[name] for name in own} == own
    assert found["XLA_FLAGS"].split() == ["--xla_dump_to=/x", f"--xla_gpu_cuda_data_dir={site}/nvidia/cuda_nvcc"]
    for whole in ("--xla_gpu_cuda_data_dir=/usr/local/cuda", "/a/file/of/flags"):
        assert told(site, XLA_FLAGS=whole)["XLA_FLAGS"] == whole


def test_a_cache_that_cannot_be_written_is_left_to_the_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_CACHE_PATH", raising=False)
    for name in ("PATH", "XLA_FLAGS", "CUDA_CACHE_MAXSIZE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    ailab_cuda.prepare(str(tmp_path / "not there"))
    assert "CUDA_CACHE_PATH" not in os.environ


def test_only_the_library_that_is_missing_is_to_blame() -> None:
    gone = "cannot open shared object file: No such file or directory"
    opened = {
        "libcudart.so.11.0": "",
        "libcublas.so.11": f"libcublas.so.11: {gone}",
        "libcusolver.so.11": f"libcublas.so.11: {gone}",
        "libcudnn.so.8": "/a/b/libcudnn.so.8: file too short",
    }
    assert list(gpu.missing(opened)) == ["libcublas.so.11", "libcudnn.so.8"]
    assert gpu.missing({"libcudart.so.11.0": ""}) == {}


def compiled(path: Path, *words: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-shared", "-fPIC", f"-Wl,-soname,{path.name}", "-o", path, "-x", "c", "/dev/null", *words],
                   check=True)  # fmt: skip


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler (cc)")
def test_the_probe_opens_libraries_as_tensorflow_s_loader_does(tmp_path: Path) -> None:
    home = tmp_path / "site/tensorflow"
    compiled(home / "libone.so.1")
    # Without --no-as-needed the linker drops what nothing is used of.
    needs = ("-Wl,--no-as-needed,-rpath,$ORIGIN", f"-L{home}", "-l:libone.so.1")
    compiled(home / "libtwo.so.1", *needs)
    compiled(tmp_path / "elsewhere/libthree.so.1")
    (home / "__init__.py").touch()
    (home / "python/platform").mkdir(parents=True)
    (home / "python/platform/build_info.py").write_text(f"build_info = {{'cuda_compute_capabilities': {BUILT_FOR}}}")

    def probe(**environment: str) -> dict[str, str]:
        words = [sys.executable, gpu.PROBE, "libraries", "libone.so.1", "libtwo.so.1", "libthree.so.1"]
        environment |= {"PYTHONPATH": str(home.parent)}
        said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
        found = json.loads(said)
        assert found["built_for"] == BUILT_FOR
        return gpu.missing(found["libraries"])

    assert list(probe()) == ["libthree.so.1"]
    assert probe(LD_LIBRARY_PATH=str(tmp_path / "elsewhere")) == {}
    (home / "libone.so.1").unlink()
    assert list(probe(LD_LIBRARY_PATH=str(tmp_path / "elsewhere"))) == ["libone.so.1"]


@pytest.mark.parametrize(
    ("capability", "state", "said"),
    [
        ("7.5", State.passed, "machine code for X (7.5)"),
        ("6.1", State.passed, "machine code"),
        ("3.7", State.passed, "machine code"),
        ("8.0", State.warning, "30 minutes"),
        ("8.6", State.warning, "/cache/cuda"),
        ("9.0", State.warning, "PTX"),
        ("3.0", State.failed, "3.0"),
        ("2.1", State.failed, "sm_35"),
    ],
)
def test_a_gpu_is_served_by_machine_code_or_from_ptx_or_not_at_all(capability: str, state: State, said: str) -> None:
    check = gpu.capability_check({"X": capability}, BUILT_FOR, "/cache/cuda")
    assert check.state == state and said in check.message
    assert bool(check.remedy) == (state == State.failed)


def test_one_gpu_that_is_served_does_not_hide_one_that_is_not() -> None:
    check = gpu.capability_check({"A": "7.5", "B": "8.6", "C": "3.0"}, BUILT_FOR, "")
    assert check.state == State.failed and check.message.startswith("C has")


def test_tensorflow_s_reason_is_found_in_its_output() -> None:
    log = (
        "2026-11-25 00:47:49.79: W tensorflow/x.cc:64] Could not load dynamic library 'libcuda.so.1'\n"
        "2026-11-25 00:47:49.80: W tensorflow/y.cc:269] failed call to cuInit: UNKNOWN ERROR (303)\n"
    )
    assert gpu.last_words('{"gpus": []}\n' + log) == "tensorflow/x.cc:64] Could not load dynamic library 'libcuda.so.1'"
    assert gpu.last_words(log + "Traceback (most recent call last):\n  File x\na.b.InternalError: no memory\n") == (
        "a.b.InternalError: no memory"
    )
    assert gpu.last_words("") == "?"
