"""`gpu` in lab.toml: what it means on machines with a GPU, with a broken one, and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from ailab import preflight, provision
from ailab.environments.gpu import GpuNotWorking
from ailab.i18n import use_language
from ailab.lab import Lab
from ailab.resources import driver
from ailab.resources.detect import Gpu
from ailab.resources.driver import Driver
from ailab.settings_file import SettingsError
from ailab.stacks import load_stack

STACK = load_stack("tensorflow-2.9")
WITH_GPU = Driver(gpus=(Gpu(0, "Tesla T4", 16 * 10**9, "535.183.01", "7.5"),), module="535.183.01")
TOO_OLD = Driver(gpus=(Gpu(0, "Tesla T4", 16 * 10**9, "440.33", "7.5"),), module="440.33")
NOUVEAU = Driver(on_bus=True, nouveau=True)
NOTHING = Driver()


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    use_language("en")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


def lab_with(folder: Path, setting: str, stack: str = "tensorflow-2.9") -> Lab:
    (folder / "lab.toml").write_text(f'[environment]\nstack = "{stack}"\ngpu = "{setting}"\n')
    return Lab.open(folder)


@pytest.mark.parametrize(
    ("setting", "seen", "wanted", "said"),
    [
        ("auto", WITH_GPU, True, ""),
        ("required", WITH_GPU, True, ""),
        ("off", WITH_GPU, False, ""),
        ("auto", NOTHING, False, ""),
        ("auto", NOUVEAU, False, "nouveau"),
        ("auto", TOO_OLD, False, "440.33"),
        ("off", NOUVEAU, False, ""),
    ],
)
def test_who_gets_cuda_and_who_is_told_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, seen: Driver, wanted: bool, said: str
) -> None:
    monkeypatch.setattr(driver, "look", lambda: seen)
    told: list[str] = []
    assert preflight.wants_cuda(lab_with(tmp_path, setting), STACK, told.append) == wanted
    assert (said in " ".join(told)) if said else not told


@pytest.mark.parametrize(("seen", "said"), [(NOTHING, "No NVIDIA GPU"), (NOUVEAU, "nouveau"), (TOO_OLD, "450.80.02")])
def test_a_required_gpu_that_is_not_there_is_a_refusal_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Driver, said: str
) -> None:
    monkeypatch.setattr(driver, "look", lambda: seen)
    lab = lab_with(tmp_path, "required")
    with pytest.raises(GpuNotWorking, match=said) as caught:
        provision.ensure_environment(lab, lambda _title: pytest.fail("no step is begun"), lambda _text: None)
    assert caught.value.remedy and caught.value.exit_code == 1
    assert not (tmp_path / "lab.lock").exists()


def test_a_stack_that_cannot_use_a_gpu_is_refused_with_the_line(tmp_path: Path) -> None:
    lab = lab_with(tmp_path, "required", "science")
    with pytest.raises(SettingsError, match=r"lab\.toml:3: environment\.gpu: The stack science") as caught:
        preflight.wants_cuda(lab, load_stack("science"), lambda _text: None)
    assert "env stacks" in caught.value.remedy
    assert not preflight.wants_cuda(lab_with(tmp_path, "auto", "science"), load_stack("science"), pytest.fail)


def test_a_kernel_without_the_required_gpu_is_a_refusal(tmp_path: Path) -> None:
    preflight.refuse_silent_cpu(lab_with(tmp_path, "required"), ["/physical_device:GPU:0"])
    preflight.refuse_silent_cpu(lab_with(tmp_path, "auto"), [])
    with pytest.raises(GpuNotWorking, match="sees no GPU"):
        preflight.refuse_silent_cpu(lab_with(tmp_path, "required"), [])


def test_the_setting_is_part_of_the_wish_only_where_it_is_set(tmp_path: Path) -> None:
    plain, off = (provision.wish_of(lab_with(tmp_path, setting)) for setting in ("auto", "off"))
    assert off == f"{plain}/off"
