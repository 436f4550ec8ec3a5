"""The chain to the GPU: each broken link as the kernel's files show it, by the layout of /proc, /sys and /dev."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import reachable_folder
from patients import as_nobody, facts_of, system

from ailab.doctor import gpu
from ailab.doctor.facts import Facts
from ailab.doctor.findings import Finding, Severity
from ailab.errors import AilabError
from ailab.settings import EnvironmentSection, Settings

OK, WARNING, ERROR = Severity.ok, Severity.warning, Severity.error
CARD = {
    "sys__bus__pci__devices__0000:01:00.0__vendor": "0x10de\n",
    "sys__bus__pci__devices__0000:01:00.0__class": "0x030200\n",
}
AUDIO = {
    "sys__bus__pci__devices__0000:01:00.1__vendor": "0x10de\n",
    "sys__bus__pci__devices__0000:01:00.1__class": "0x040300\n",
}
DRIVER = {"proc__driver__nvidia__version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01\nGCC version\n"}
DEVICES = {"dev__nvidiactl": "", "dev__nvidia0": "", "dev__nvidia-uvm": ""}
NOUVEAU = {"sys__module__nouveau__refcnt": "1"}
SECURE_BOOT = {gpu._SECURE_BOOT.replace("/", "__"): "\6\0\0\0\1"}
CONTAINER = {".dockerenv": ""}


def machine(tmp_path: Path, *parts: dict[str, str], wish: str = "auto", gpus: tuple[str, ...] = ("Tesla T4",)) -> Facts:
    tree = {name: text for part in parts for name, text in part.items()}
    (tmp_path / "tree").mkdir(exist_ok=True)
    facts = facts_of(tmp_path / "home", system=system(tmp_path / "tree", **tree))
    settings = Settings(environment=EnvironmentSection(gpu=wish))  # type: ignore[arg-type]
    return replace(facts, settings=settings, probes=replace(facts.probes, gpus=lambda: gpus))


def seen(facts: Facts) -> Finding:
    (found,) = gpu.chain(facts)
    return found


def test_no_gpu_is_no_fault_unless_one_is_required(tmp_path: Path) -> None:
    assert seen(machine(tmp_path, AUDIO)).severity == OK
    required = seen(machine(tmp_path, AUDIO, wish="required"))
    assert required.severity == ERROR and 'gpu = "auto"' in required.remedy


def test_a_gpu_that_works(tmp_path: Path) -> None:
    found = seen(machine(tmp_path, CARD, AUDIO, DRIVER, DEVICES))
    assert found.severity == OK and found.message == "Tesla T4" and "535.183.01" in found.evidence


@pytest.mark.parametrize(
    ("parts", "said", "remedy"),
    [
        ([CARD], "not loaded", "modprobe nvidia"),
        ([CARD, NOUVEAU], "nouveau", "nvidia-driver"),
        ([CARD, SECURE_BOOT], "Secure Boot", "mokutil"),
        ([CARD, CONTAINER], "without NVIDIA's runtime", "--gpus all"),
        ([CARD, DRIVER], "device files", "nvidia-modprobe"),
        ([CARD, DRIVER, CONTAINER], "without NVIDIA's runtime", "nvidia-container-toolkit"),
        ([CARD, {"proc__1__cgroup": "0::/kubepods/pod1\n"}], "without NVIDIA's runtime", "--gpus all"),
    ],
    ids=["no driver", "nouveau", "secure boot", "container", "no devices", "container with module", "kubernetes"],
)
def test_the_broken_link_is_named(tmp_path: Path, parts: list[dict[str, str]], said: str, remedy: str) -> None:
    found = seen(machine(tmp_path, *parts))
    assert found.severity == WARNING and said in found.message and remedy in found.remedy and found.evidence
    assert seen(machine(tmp_path, *parts, wish="required")).severity == ERROR
    assert seen(machine(tmp_path, *parts, wish="off")).severity == OK


@pytest.mark.parametrize(("container", "said"), [(CONTAINER, "daemon-reload"), ({}, "account")])
def test_devices_that_may_not_be_opened(container: dict[str, str], said: str) -> None:
    with reachable_folder() as folder:
        facts = machine(folder, CARD, DRIVER, DEVICES, container)
        (facts.system / "dev/nvidia0").chmod(0)
        assert said in as_nobody(lambda: seen(facts).message)


def test_nvml_says_no(tmp_path: Path) -> None:
    facts = machine(tmp_path, CARD, DRIVER, DEVICES)

    def refuse() -> tuple[str, ...]:
        raise AilabError("Driver/library version mismatch", remedy="reboot")

    found = seen(replace(facts, probes=replace(facts.probes, gpus=refuse)))
    assert found.severity == WARNING and "NVML" in found.message and found.evidence.startswith("Driver/library")


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this machine has NVIDIA's driver")
def test_without_a_driver_nvml_itself_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(AilabError) as refused:
        facts_of(tmp_path).probes.gpus()
    assert "NVML" in refused.value.message and "libnvidia-ml" in refused.value.remedy
