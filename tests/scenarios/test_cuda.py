"""The CUDA group, really installed: TensorFlow's own loader opens all of it, and one that is missing is named.

On a machine without a GPU a small libcuda.so.1 of our own takes the driver's place, or TensorFlow would not look for
the rest.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from ailab import preflight, provision
from ailab.environments import cuda, gpu, installed, interpreters, kernel, lock
from ailab.environments.generations import Generation, Generations
from ailab.environments.gpu import GpuNotWorking, State
from ailab.environments.uv import Uv
from ailab.environments.verification import prove
from ailab.i18n import use_language
from ailab.lab import Lab
from ailab.paths import LabPaths, MachinePaths, private_folder
from ailab.resources import driver
from ailab.resources.detect import Gpu
from ailab.resources.driver import Driver
from ailab.settings import MirrorsSection
from ailab.stacks import Stack, load_stack

STACK = load_stack("tensorflow-2.9")
NEWER = load_stack("tensorflow-2.15")
LIBRARIES = STACK.cuda.libraries if STACK.cuda is not None else []
HOME = Path(os.environ.get("AILAB_CHECK_HOME") or "/var/tmp") / "ailab"
NEEDED_BYTES = 8 * 10**9
SEEN = Driver(gpus=(Gpu(0, "Tesla T4", 16 * 10**9, "535.183.01", "7.5"),), module="535.183.01")
_OPENED = re.compile(r"Successfully opened dynamic library (\S+)")
_NOT_OPENED = re.compile(r"Could not load dynamic library '([^']+)'")
TRAIN = "import tensorflow as tf\nprint(tf.config.list_physical_devices('GPU'))\n"


def free_bytes() -> int:
    there = next(path for path in (HOME, *HOME.parents) if path.exists())
    return shutil.disk_usage(there).free


pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="CUDA libraries are wheels for x86_64 only"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler (cc) for the fake driver"),
    pytest.mark.skipif(
        free_bytes() < NEEDED_BYTES, reason=f"needs 8 GB of free disk in {HOME} for TensorFlow and CUDA"
    ),
]


@pytest.fixture(scope="module")
def machine() -> MachinePaths:
    return MachinePaths(HOME)


@pytest.fixture(scope="module")
def generation(machine: MachinePaths, tmp_path_factory: pytest.TempPathFactory) -> Generation:
    return built(STACK, machine, tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def newer(machine: MachinePaths, tmp_path_factory: pytest.TempPathFactory) -> Generation:
    return built(NEWER, machine, tmp_path_factory.mktemp("lab"))


def built(stack: Stack, machine: MachinePaths, lab: Path) -> Generation:
    """The tested lock of a stack with its CUDA group."""
    uv, shipped = Uv(machine, MirrorsSection()), lock.read_lock(stack.shipped_lock)
    assert shipped is not None
    kept = Generations(machine, LabPaths(lab))
    return kept.build(stack, shipped.with_cuda(), interpreters.find(stack, "", uv), uv, lambda _text: None)[0]


@pytest.fixture(scope="module")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("fake_libcuda.c")
    words = ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", folder / "libcuda.so.1", source]
    subprocess.run(words, check=True)
    return folder


@pytest.fixture(autouse=True)
def with_driver(fake_driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_language("en")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake_driver))
    monkeypatch.setenv("TF_CPP_VMODULE", "dso_loader=1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@contextmanager
def without(generation: Generation, name: str) -> Iterator[None]:
    link = installed.site_packages(Path(generation.folder)) / "tensorflow" / name
    target = link.readlink()
    link.unlink()
    try:
        yield
    finally:
        link.symlink_to(target)


def train(generation: Generation, folder: Path) -> tuple[str, str]:
    """`python train.py` as a person types it: what it prints, and TensorFlow's log."""
    (folder / "train.py").write_text(TRAIN)
    words = [generation.program, "train.py"]
    done = subprocess.run(words, cwd=folder, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0"}, capture_output=True,
                          text=True, check=True, timeout=300)  # fmt: skip
    return done.stdout, done.stderr


def test_tensorflow_s_own_loader_opens_all_eight(generation: Generation, tmp_path: Path) -> None:
    printed, log = train(generation, tmp_path)
    opened = list(dict.fromkeys(_OPENED.findall(log)))
    assert sorted(opened) == sorted([*LIBRARIES, "libcuda.so.1"]) and len(LIBRARIES) == 8
    assert "GPU:0" in printed and not _NOT_OPENED.findall(log)


@pytest.mark.long
def test_another_stack_s_libraries_are_its_data(newer: Generation, tmp_path: Path) -> None:
    """TensorFlow 2.15 opens CUDA 12's, and those that the stack names, in its order."""
    assert NEWER.cuda is not None
    printed, log = train(newer, tmp_path)
    opened = [name for name in _OPENED.findall(log) if name != "libcuda.so.1"]
    assert list(dict.fromkeys(opened)) == NEWER.cuda.libraries and "GPU:0" in printed
    found = gpu.look(newer, NEWER)
    assert gpu.library_check(newer, NEWER, found).state == State.passed
    assert found["built_for"] == ["sm_50", "sm_60", "sm_70", "sm_75", "compute_80"]


@pytest.mark.long
def test_its_whole_proof_passes_on_the_cpu(newer: Generation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH")
    lab = LabPaths(tmp_path / "lab")
    for folder in lab.private_folders:
        private_folder(folder)
    document = prove(newer, NEWER, lab)
    assert document["tensorflow"] == "2.15.1" and document["python"] == newer.python and document["accuracy"] > 0.9


def test_with_one_removed_tensorflow_and_preflight_name_the_same_one(generation: Generation, tmp_path: Path) -> None:
    with without(generation, "libcudnn.so.8"):
        printed, log = train(generation, tmp_path)
        assert set(_NOT_OPENED.findall(log)) == {"libcudnn.so.8"} and "GPU:0" not in printed
        check = gpu.library_check(generation, STACK, gpu.look(generation, STACK))
    assert check.state == State.failed and re.findall(r"lib\w+\.so[.\d]*", check.message.split(" (")[0]) == [
        "libcudnn.so.8"
    ]


@pytest.mark.parametrize("name", LIBRARIES)
def test_preflight_names_exactly_the_one_that_is_missing(generation: Generation, name: str) -> None:
    with without(generation, name):
        found = gpu.look(generation, STACK)
    assert list(gpu.missing(found["libraries"])) == [name]
    check = gpu.library_check(generation, STACK, found)
    assert check.message.startswith(f"{name} cannot be opened (") and "env build --again" in check.remedy


def test_preflight_finds_the_rest_of_the_chain(
    generation: Generation, fake_driver: Path, machine: MachinePaths
) -> None:
    found = gpu.look(generation, STACK)
    assert gpu.library_check(generation, STACK, found).state == State.passed
    assert found["driver_library"] == str(fake_driver / "libcuda.so.1")
    assert found["built_for"] == ["sm_35", "sm_50", "sm_60", "sm_70", "sm_75", "compute_80"]
    assert found["cache"] == str(machine.cache / "cuda")


def test_a_kernel_finds_the_same(generation: Generation, tmp_path: Path) -> None:
    lab = LabPaths(tmp_path / "lab")
    lab.state.mkdir(parents=True)
    code = f"{TRAIN}import os, shutil; print(os.environ['XLA_FLAGS'], shutil.which('ptxas'))"
    printed = kernel.run_cell(generation, lab, code)
    nvcc = installed.site_packages(Path(generation.folder)) / "nvidia/cuda_nvcc"
    assert "GPU:0" in printed and f"--xla_gpu_cuda_data_dir={nvcc} {nvcc}/bin/ptxas" in printed
    assert (nvcc / "nvvm/libdevice/libdevice.10.bc").is_file()


def test_an_operation_that_fails_says_why(generation: Generation) -> None:
    check = gpu.operation_check(generation, timeout=300)
    assert check.state == State.failed and "cudaGetDevice() failed" in check.message


def test_a_gpu_that_is_hidden_is_named(generation: Generation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert "CUDA_VISIBLE_DEVICES" in gpu.operation_check(generation).message


@pytest.fixture
def lab(tmp_path: Path, machine: MachinePaths) -> Callable[[str], Lab]:
    def made(setting: str) -> Lab:
        (tmp_path / "lab.toml").write_text(f'[environment]\ngpu = "{setting}"\n')
        opened = Lab(LabPaths(tmp_path), machine, Lab.open(tmp_path).settings)
        opened.make_private_folders()
        return opened

    return made


def test_what_gpu_in_lab_toml_does(
    generation: Generation, lab: Callable[[str], Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that lists a GPU which cannot compute, as this one with the fake driver; then one that lists none."""
    told: list[str] = []

    def ensured(setting: str) -> Generation:
        return provision.ensure_environment(lab(setting), lambda _title: nullcontext(told.append), told.append)

    monkeypatch.setattr(driver, "look", lambda: SEEN)
    with pytest.raises(GpuNotWorking, match=r"required.*cudaGetDevice\(\) failed"):
        ensured("required")
    assert lab("required").generations.current() is None, "nothing is switched to"
    assert ensured("auto") == generation
    assert any("cudaGetDevice() failed" in text for text in told), "not silently the CPU"
    checks, _seen = preflight.examine(generation, STACK)
    assert [check.state for check in checks] == [State.passed, State.passed, State.passed, State.failed]
    monkeypatch.setattr(driver, "look", Driver)
    plain = ensured("auto")
    assert plain.id != generation.id and not cuda.is_among(STACK, set(plain.packages))
    site = installed.site_packages(Path(plain.folder))
    assert not list(site.glob("ailab_cuda*")) and not list(site.glob("tensorflow/libcu*"))
