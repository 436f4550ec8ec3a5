"""NVIDIA's driver: each way in which it does not serve a GPU is recognised from files, and named with its remedy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import reachable_folder
from patients import as_nobody

from ailab.i18n import use_language
from ailab.resources.detect import Gpu
from ailab.resources.driver import Driver, look, numbers, why_not

NEEDED = "450.80.02"
VARIABLE = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
GPU_ON_BUS = {
    "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
    "sys/bus/pci/devices/0000:01:00.0/class": "0x030000\n",
}
CONTAINER = {".dockerenv": ""}
DEBIAN = {"etc/os-release": 'PRETTY_NAME="Debian"\nID=debian\n'}
DKMS = {f"lib/modules/{os.uname().release}/updates/dkms/nvidia-current.ko.xz": ""}
LOADED = {"sys/module/nvidia/version": "535.183.01\n"}


@pytest.fixture(autouse=True)
def english() -> None:
    use_language("en")


def machine(root: Path, *parts: dict[str, str | bytes]) -> Path:
    for part in parts:
        for name, content in part.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


CASES = {
    "nothing": ([DEBIAN], "No NVIDIA GPU is in this machine", '"auto"'),
    "nothing in a container": ([CONTAINER], "No NVIDIA GPU is in this container", "--gpus all"),
    "no driver": ([GPU_ON_BUS, DEBIAN], "no driver for the running kernel", "apt-get install linux-headers-amd64"),
    "nouveau": ([GPU_ON_BUS, {"sys/module/nouveau/refcnt": "1"}], "held by nouveau", "blacklist nouveau"),
    "Secure Boot": ([GPU_ON_BUS, DKMS, {VARIABLE: b"\6\0\0\0\1"}], "Secure Boot", "mokutil --import"),
    "Secure Boot is off": ([GPU_ON_BUS, DKMS, {VARIABLE: b"\6\0\0\0\0"}], "not loaded", "modprobe nvidia"),
    "a container without the runtime": ([CONTAINER, LOADED], "without the NVIDIA runtime", "Container Toolkit"),
    "the same by its cgroup": (
        [{"proc/1/cgroup": "0::/kubepods.slice/x\n"}, LOADED],
        "without the NVIDIA runtime: the host has driver 535.183.01",
        "Container Toolkit",
    ),
    "nouveau on the host": (
        [CONTAINER, GPU_ON_BUS, {"sys/module/nouveau/refcnt": "1"}], "nouveau holds it", "On the host",
    ),
    "WSL": ([{"dev/dxg": ""}], "This is WSL", "wsl --shutdown"),
    "it answers nothing": ([LOADED, {"dev/nvidiactl": ""}], "serves no GPU", "dmesg"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_files_show(tmp_path: Path, name: str) -> None:
    parts, message, remedy = CASES[name]
    told = why_not(look(machine(tmp_path, *parts)), NEEDED)
    assert told is not None
    assert message in told[0] and remedy in told[1]


def test_the_kernel_s_own_nvidiafb_is_not_the_driver(tmp_path: Path) -> None:
    module = f"lib/modules/{os.uname().release}/kernel/drivers/video/fbdev/nvidia/nvidiafb.ko"
    assert not look(machine(tmp_path, GPU_ON_BUS, {module: ""})).module_files


def test_another_vendor_s_display_and_nvidia_s_network_card_are_no_gpu(tmp_path: Path) -> None:
    slots = "sys/bus/pci/devices"
    others = {f"{slots}/a/vendor": "0x8086", f"{slots}/a/class": "0x030000", f"{slots}/b/vendor": "0x10de",
              f"{slots}/b/class": "0x020000"}  # fmt: skip
    assert not look(machine(tmp_path, others)).on_bus


LOST = {"/dev/nvidiactl": "EPERM", "/dev/nvidia0": "EPERM"}


@pytest.mark.parametrize(
    ("driver", "message", "remedy"),
    [
        (Driver(container=True, module="535.1", devices=LOST), "systemctl daemon-reload", "create-dev-char-symlinks"),
        (Driver(module="535.1", devices={"/dev/nvidia0": "EACCES"}), "may not open /dev/nvidia0", "usermod -aG"),
        (Driver(module="535.1", nvml="Driver/library version mismatch"), "was updated", "Restart the machine"),
        (Driver(container=True, module="1.0", nvml="Driver/library version mismatch"), "was updated", "the container"),
        (Driver(module="535.1", nvml="NVML Shared Library Not Found", system="ubuntu"), "libnvidia-ml", "ubuntu-dr"),
        (Driver(container=True, module="535.1", devices={"/dev/nvidiactl": ""}, nvml="NVML Shared Library Not Found"),
         "libnvidia-ml.so.1", "NVIDIA_DRIVER_CAPABILITIES"),
        (Driver(module="535.1", devices={"/dev/nvidiactl": ""}, nvml="GPU is lost"), "GPU is lost", "dmesg"),
    ],
)  # fmt: skip
def test_what_opening_devices_and_nvml_show(driver: Driver, message: str, remedy: str) -> None:
    told = why_not(driver, NEEDED)
    assert told is not None
    assert message in told[0] and remedy in told[1]


def test_a_device_that_this_account_may_not_open() -> None:
    with reachable_folder() as folder:
        machine(folder, LOADED, {"dev/nvidia0": ""})
        (folder / "dev/nvidia0").chmod(0)
        assert as_nobody(lambda: look(folder).devices["/dev/nvidia0"]) == "EACCES"


def seen(version: str, **more: bool) -> Driver:
    return Driver(gpus=(Gpu(0, "Tesla T4", 16 * 10**9, version, "7.5"),), **more)


def test_a_driver_is_new_enough_or_told_to_be_updated() -> None:
    assert why_not(seen("450.80.02"), NEEDED) is None
    assert why_not(seen("535.183.01"), NEEDED) is None
    told = why_not(seen("440.118.02"), NEEDED)
    assert told is not None and "440.118.02; 450.80.02 or newer" in told[0]
    told = why_not(seen("418.40", container=True), NEEDED)
    assert told is not None and "on the host" in told[1]
    assert numbers("450.80.02") < numbers("450.102.04") < numbers("1000.1")


def test_this_machine_can_be_looked_at() -> None:
    here = look()
    assert bool(here.gpus) == (why_not(here, "0") is None)
    assert set(here.devices.values()) <= {"", "EPERM", "EACCES", "ENXIO", "ENODEV", "EIO"}
