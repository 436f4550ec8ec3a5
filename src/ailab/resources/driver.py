"""NVIDIA's driver on this machine: what can be seen of it, and why it does not serve, with what would mend that."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ailab.i18n import _
from ailab.resources.detect import Gpu, ask_nvml

# EFI's variable: four bytes of attributes, then one byte, 1 where Secure Boot is on (UEFI specification, 3.3).
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_NVIDIA = "0x10de"
# PCI classes VGA controller and 3D controller.
_DISPLAYS = ("0x0300", "0x0302")
_CONTAINER_FILES = (".dockerenv", "run/.containerenv", "run/systemd/container", "var/run/secrets/kubernetes.io")
_CONTAINER_GROUPS = re.compile(r"docker|kubepods|containerd|libpod|/lxc")
# Debian's is called nvidia-current; nvidiafb is the kernel's own and something else.
_MODULE = re.compile(r"nvidia(-current.*)?\.ko(\.\w+)?")
_DEVICES = ("dev/nvidiactl", "dev/nvidia0", "dev/nvidia-uvm")


@dataclass(frozen=True)
class Driver:
    """What is seen; each field is evidence, none a verdict. `devices` has the error name of opening each device file
    that there is ("" where it opens); `module` is the version of the loaded kernel module."""

    gpus: tuple[Gpu, ...] = ()
    nvml: str = ""
    on_bus: bool = False
    module: str = ""
    module_files: bool = False
    nouveau: bool = False
    secure_boot: bool = False
    container: bool = False
    wsl: bool = False
    devices: dict[str, str] = field(default_factory=dict)
    system: str = ""

    @property
    def is_there(self) -> bool:
        """Whether anything shows that this machine has a GPU of NVIDIA's, or is meant to have one."""
        return bool(self.gpus or self.on_bus or self.devices or self.module)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def look(root: Path = Path("/")) -> Driver:
    """What this machine shows; `root` is for tests, and GPUs are asked for only where it is the machine's own."""
    gpus, nvml = ask_nvml() if root == Path("/") else ((), "")
    release = os.uname().release
    modules = root / "lib/modules" / release
    return Driver(
        gpus=gpus,
        nvml=nvml,
        on_bus=any(_is_gpu(device) for device in (root / "sys/bus/pci/devices").glob("*")),
        module=_first_version(root / "sys/module/nvidia/version", root / "proc/driver/nvidia/version"),
        module_files=any(_modules(modules)),
        nouveau=(root / "sys/module/nouveau").exists(),
        secure_boot=_bytes(root / _SECURE_BOOT)[4:5] == b"\x01",
        container=any((root / name).exists() for name in _CONTAINER_FILES)
        or bool(_CONTAINER_GROUPS.search(_text(root / "proc/1/cgroup"))),
        wsl=(root / "dev/dxg").exists(),
        devices={f"/{name}": _opens(root / name) for name in _DEVICES if (root / name).exists()},
        system=_system(_text(root / "etc/os-release")),
    )


def _is_gpu(device: Path) -> bool:
    return _text(device / "vendor").strip() == _NVIDIA and _text(device / "class").startswith(_DISPLAYS)


def _modules(folder: Path) -> list[Path]:
    """The files of NVIDIA's module for the running kernel: DKMS and the distributions keep them in one of these."""
    kept = ("updates", "extra", "kernel/drivers/video", "kernel/nvidia*", "weak-updates", "misc")
    files = (path for place in kept for path in folder.glob(f"{place}/**/nvidia*.ko*"))
    return [path for path in files if _MODULE.fullmatch(path.name)]


def _first_version(*files: Path) -> str:
    found = (re.search(r"\b(\d+\.\d+(\.\d+)?)\b", _text(path)) for path in files)
    return next((match[1] for match in found if match), "")


def _opens(device: Path) -> str:
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    return ""


def _system(release: str) -> str:
    """ "debian", "ubuntu", ...: ID of os-release(5)."""
    match = re.search(r'^ID="?([a-z0-9._-]+)"?$', release, re.MULTILINE)
    return match[1] if match else ""


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _text(path: Path) -> str:
    return _bytes(path).decode(errors="replace")


def numbers(version: str) -> tuple[int, ...]:
    """ "450.80.02" as numbers, to compare."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def why_not(driver: Driver, needed: str) -> tuple[str, str] | None:
    """Why no GPU can be used here, and the remedy; None where the driver serves GPUs and is `needed` or newer."""
    if driver.gpus:
        return _too_old(driver, needed) if numbers(driver.gpus[0].driver) < numbers(needed) else None
    return next(told for case in (_IN_CONTAINER if driver.container else _ON_METAL) if (told := case(driver)))


def _too_old(driver: Driver, needed: str) -> tuple[str, str]:
    message = _("The NVIDIA driver is {version}; {needed} or newer is needed.")
    return message.format(version=driver.gpus[0].driver, needed=needed), _update(driver)


def _update(driver: Driver) -> str:
    if driver.container:
        return _("Update the driver on the host, restart the host, then start the container again.")
    return _("Update it ({command}), then restart the machine.").format(command=install_command(driver.system))


def install_command(system: str) -> str:
    """How a distribution installs NVIDIA's driver."""
    known = {
        "ubuntu": "sudo ubuntu-drivers install",
        "debian": "sudo apt-get install linux-headers-amd64 nvidia-driver",
        "fedora": "sudo dnf install akmod-nvidia",
        "arch": "sudo pacman -S nvidia",
    }
    return known.get(system, _("as your distribution's manual says"))


def _mismatch(driver: Driver) -> tuple[str, str] | None:
    if "mismatch" not in driver.nvml.lower():
        return None
    remedy = _("Start the container again.") if driver.container else _("Restart the machine.")
    return _("The driver was updated while the old one is still loaded ({error}).").format(error=driver.nvml), remedy


def _devices_lost(driver: Driver) -> tuple[str, str] | None:
    lost = [path for path, error in driver.devices.items() if error == "EPERM"]
    if not lost:
        return None
    return (
        _(
            "The container has lost its GPU: opening {path} is refused (EPERM). `systemctl daemon-reload` on the host"
            " takes the devices away from running containers."
        ).format(path=lost[0]),
        _(
            "Start the container again. So that it does not come back, on the host:"
            " sudo nvidia-ctk system create-dev-char-symlinks --create-all"
        ),
    )


def _no_runtime(driver: Driver) -> tuple[str, str] | None:
    if not driver.module or driver.devices:
        return None
    return (
        _(
            "This container was started without the NVIDIA runtime: the host has driver {version}, but none of its"
            " devices is in here."
        ).format(version=driver.module),
        _(
            "On the host install the NVIDIA Container Toolkit, then start the container with --gpus all (Podman:"
            " --device nvidia.com/gpu=all)."
        ),
    )


def _no_driver_on_host(driver: Driver) -> tuple[str, str] | None:
    if not driver.on_bus or driver.module:
        return None
    holds = _("nouveau holds it") if driver.nouveau else _("the host has not loaded NVIDIA's driver")
    return (
        _("There is an NVIDIA GPU, but {reason}; this is a container, which cannot load one.").format(reason=holds),
        _("On the host install NVIDIA's driver, then start the container with --gpus all."),
    )


def _libraries_absent(driver: Driver) -> tuple[str, str] | None:
    """The devices are there and NVML is not."""
    if "not found" not in driver.nvml.lower():
        return None
    if driver.container:
        return (
            _("The GPU's devices are in this container, but the driver's libraries are not (libnvidia-ml.so.1)."),
            _("Start it with --gpus all, and with NVIDIA_DRIVER_CAPABILITIES=compute,utility."),
        )
    return (
        _("The driver's kernel module is loaded, but its libraries are not installed (libnvidia-ml.so.1)."),
        _("Install the whole driver: {command}").format(command=install_command(driver.system)),
    )


def _not_permitted(driver: Driver) -> tuple[str, str] | None:
    closed = [path for path, error in driver.devices.items() if error in ("EACCES", "EPERM")]
    if not closed:
        return None
    return (
        _("This account may not open {path}.").format(path=closed[0]),
        _("Let it: sudo usermod -aG video,render ACCOUNT, then start the lab again (the group: ls -l {path}).").format(
            path=closed[0]
        ),
    )


def _nouveau(driver: Driver) -> tuple[str, str] | None:
    if not driver.nouveau or driver.module:
        return None
    return (
        _("The GPU is held by nouveau, the free driver, which cannot compute."),
        _(
            "Install NVIDIA's driver ({command}), keep nouveau out: echo 'blacklist nouveau' | sudo tee"
            " /etc/modprobe.d/nouveau.conf && sudo update-initramfs -u; then restart the machine."
        ).format(command=install_command(driver.system)),
    )


def _secure_boot(driver: Driver) -> tuple[str, str] | None:
    if driver.module or not (driver.secure_boot and driver.module_files):
        return None
    return (
        _("NVIDIA's driver is installed but not loaded: Secure Boot is on, and refuses a module that is not signed."),
        _(
            "Enrol the key that signs it: sudo mokutil --import /var/lib/dkms/mok.pub (Ubuntu:"
            " /var/lib/shim-signed/mok/MOK.der), restart and confirm; or turn Secure Boot off in the firmware."
        ),
    )


def _not_loaded(driver: Driver) -> tuple[str, str] | None:
    if driver.module or not driver.module_files:
        return None
    return (
        _("NVIDIA's driver is installed but not loaded."),
        _("Load it: sudo modprobe nvidia; where that fails, its reason is in: sudo dmesg"),
    )


def _not_installed(driver: Driver) -> tuple[str, str] | None:
    if driver.module or not driver.on_bus:
        return None
    return (
        _("There is an NVIDIA GPU, but no driver for the running kernel."),
        _("Install it ({command}), then restart the machine.").format(command=install_command(driver.system)),
    )


def _wsl(driver: Driver) -> tuple[str, str] | None:
    if not driver.wsl:
        return None
    return (
        _("This is WSL, and NVIDIA's driver does not answer in it."),
        _("Install NVIDIA's driver in Windows (none in WSL), then: wsl --shutdown"),
    )


def _does_not_answer(driver: Driver) -> tuple[str, str] | None:
    if not (driver.module or driver.devices):
        return None
    said = driver.nvml or _("it lists no GPU")
    return (
        _("NVIDIA's driver {version} is loaded but serves no GPU: {error}.").format(version=driver.module, error=said),
        _("Look for its reason: sudo dmesg; a restart of the machine brings a GPU back that has fallen off the bus."),
    )


def _no_gpu(driver: Driver) -> tuple[str, str]:
    place = _("No NVIDIA GPU is in this container.") if driver.container else _("No NVIDIA GPU is in this machine.")
    remedy = _('To compute on the CPU: [environment] gpu = "auto" in lab.toml. A container gets a GPU by --gpus all.')
    return place, remedy


_Case = Callable[[Driver], tuple[str, str] | None]
# The first that applies is told: an explicit order, the more particular before the more general.
_IN_CONTAINER: tuple[_Case, ...] = (
    _mismatch, _devices_lost, _not_permitted, _libraries_absent, _no_runtime, _no_driver_on_host, _does_not_answer,
    _wsl, _no_gpu,
)  # fmt: skip
_ON_METAL: tuple[_Case, ...] = (
    _mismatch, _nouveau, _secure_boot, _not_loaded, _not_installed, _not_permitted, _libraries_absent,
    _does_not_answer, _wsl, _no_gpu,
)  # fmt: skip
