"""The chain from the card to NVML, link by link: the first one that is broken is the one to mend."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ailab.doctor.facts import Facts
from ailab.doctor.findings import Finding, error, fine, warning
from ailab.errors import AilabError
from ailab.i18n import _

_NVIDIA = "0x10de"
# PCI's base class of display controllers (pci.ids): VGA 0x0300, 3D 0x0302.
_DISPLAY = "0x03"
# The global variables' GUID of the UEFI specification; the value follows four bytes of attributes.
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_CONTROL = "dev/nvidiactl"
Broken = tuple[str, str, str]


def chain(facts: Facts) -> Iterator[Finding]:
    """No GPU is no fault, unless lab.toml requires one. A GPU that is there and cannot be used is."""
    wish = facts.settings.environment.gpu
    cards, driver = _cards(facts.system), _driver(facts)
    if not cards and not driver and not (facts.system / _CONTROL).exists():
        yield from _none(wish)
        return
    broken = next(filter(None, (link(facts) for link in LINKS)), None)
    if broken is None:
        yield fine(", ".join(facts.probes.gpus()), driver)
    elif wish == "off":
        yield fine(broken[0], _("not wanted: [environment] gpu is off"))
    else:
        yield error(*broken) if wish == "required" else warning(*broken)


def _none(wish: str) -> Iterator[Finding]:
    if wish == "required":
        yield error(
            _("There is no NVIDIA GPU on this machine, and lab.toml requires one."),
            '[environment] gpu = "required"',
            _('Set [environment] gpu = "auto" in lab.toml, or use a machine with a GPU.'),
        )
    else:
        yield fine(_("No NVIDIA GPU: computing on the CPU."))


def _module(facts: Facts) -> Broken | None:
    """The kernel's module, or the reason for which there is none."""
    if _driver(facts) or not _cards(facts.system):
        return None
    card = ", ".join(_cards(facts.system))
    if _in_container(facts):
        return _hidden(card)
    if (facts.system / "sys/module/nouveau").is_dir():
        return (
            _("The nouveau driver holds the GPU; it cannot compute."),
            f"{card}; /sys/module/nouveau",
            _("Install NVIDIA's driver (Debian: apt install nvidia-driver), which shuts nouveau out, and reboot."),
        )
    if _secure_boot(facts.system):
        return (
            _("NVIDIA's driver is not loaded, and Secure Boot is on: the kernel refuses modules that are not signed."),
            card,
            _("Sign it: mokutil --import /var/lib/dkms/mok.pub, reboot and enroll the key; or turn Secure Boot off."),
        )
    return (
        _("NVIDIA's driver is not loaded."),
        card,
        _("Load it: modprobe nvidia. If it is not installed (Debian): apt install nvidia-driver, then reboot."),
    )


def _device_files(facts: Facts) -> Broken | None:
    if (facts.system / _CONTROL).exists():
        return None
    if _in_container(facts):
        return _hidden(_driver(facts))
    return (
        _("The driver is loaded, but its device files (/dev/nvidia*) are missing."),
        _driver(facts),
        _("Make them: nvidia-smi as root once, or nvidia-modprobe -u -c 0"),
    )


def _access(facts: Facts) -> Broken | None:
    """Whether we may open the devices. EPERM from a file whose mode allows it is a control group's word."""
    for device in sorted(facts.system.glob("dev/nvidia*")):
        if device.is_dir() or "caps" in device.name or "modeset" in device.name:
            continue
        try:
            os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
        except OSError as refused:
            return _refused(facts, device, refused)
    return None


def _refused(facts: Facts, device: Path, refused: OSError) -> Broken:
    seen = f"{device}: {refused.strerror}"
    if _in_container(facts) and isinstance(refused, PermissionError):
        return (
            _("The container may no longer open the GPU: systemctl daemon-reload on the host takes devices away."),
            seen,
            _("Restart the container. For good: create the device links on the host (nvidia-ctk system "
              "create-dev-char-symlinks --create-all)."),
        )  # fmt: skip
    return (
        _("This account may not use the GPU."),
        seen,
        _("Add it to the devices' group (ls -l /dev/nvidia*), often: usermod -aG video ACCOUNT"),
    )


def _hidden(seen: str) -> Broken:
    return (
        _("This container was started without NVIDIA's runtime: the machine has a GPU, the container does not see it."),
        seen,
        _("Start it with: docker run --gpus all (the host needs nvidia-container-toolkit)."),
    )


def _library(facts: Facts) -> Broken | None:
    try:
        facts.probes.gpus()
    except AilabError as refused:
        return _("NVIDIA's driver does not answer (NVML)."), refused.message, refused.remedy
    return None


LINKS: tuple[Callable[[Facts], Broken | None], ...] = (_module, _device_files, _access, _library)


def _cards(system: Path) -> list[str]:
    """The PCI addresses of NVIDIA's display controllers."""
    found = []
    for device in sorted(system.glob("sys/bus/pci/devices/*")):
        try:
            vendor, kind = (device / "vendor").read_text().strip(), (device / "class").read_text().strip()
        except OSError:
            continue
        if vendor == _NVIDIA and kind.startswith(_DISPLAY):
            found.append(device.name)
    return found


def _driver(facts: Facts) -> str:
    """The driver's own line of its version; empty while it is not loaded."""
    line = facts.read("proc/driver/nvidia/version").partition("\n")[0].strip()
    return line or ("/sys/module/nvidia" if (facts.system / "sys/module/nvidia").is_dir() else "")


def _secure_boot(system: Path) -> bool:
    try:
        return (system / _SECURE_BOOT).read_bytes()[4:5] == b"\x01"
    except OSError:
        return False


def _in_container(facts: Facts) -> bool:
    """As the engines mark them: Docker and Podman by a file, Kubernetes and LXC in the cgroup of process 1."""
    marks = (facts.system / ".dockerenv", facts.system / "run/.containerenv")
    groups = facts.read("proc/1/cgroup")
    return any(mark.exists() for mark in marks) or any(word in groups for word in ("kubepods", "docker", "lxc"))
