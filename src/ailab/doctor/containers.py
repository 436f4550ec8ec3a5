"""The container engine, and GPUs in its containers: is it there, may we use it, and has it what NVIDIA's GPUs need?"""

from __future__ import annotations

from collections.abc import Iterator

from ailab.doctor.facts import Facts
from ailab.doctor.findings import Finding, error, fine, from_error, warning
from ailab.engine_gpus import Means
from ailab.errors import AilabError
from ailab.i18n import _

# How a start begins in Docker Engine's log, and the libraries that read the networks' store (bbolt alone reads others,
# too), in a panic's trace: https://github.com/moby/moby/issues/42099.
_STARTS = "Starting up"
_STORE = ("bbolt", "libnetwork")
_NETWORKS = "/var/lib/docker/network/files/local-kv.db"
_NOTICE = "https://github.com/NVIDIA/nvidia-container-toolkit/issues/48"


def engine(facts: Facts) -> Iterator[Finding]:
    """No engine is no fault of a lab that does not use one."""
    try:
        info = facts.probes.engine()
    except AilabError as refused:
        panic = _network_panic(facts.probes.engine_log())
        if panic:
            yield _broken_networks(panic, needed=facts.needs_engine)
        elif facts.needs_engine:
            yield from_error(refused)
        else:
            yield fine(_("None that this account may use; this lab needs none."), refused.message)
        return
    evidence = f"cgroup v{info.get('CgroupVersion', '?')}, {info.get('CgroupDriver', '?')}, {info.get('Driver', '?')}"
    yield fine(str(info.get("ServerVersion", "?")), evidence)


def _network_panic(log: str) -> str:
    """The line with which the engine's last start ended, where reading what it keeps of its networks ended it."""
    last = log.rpartition(_STARTS)[2]
    at = last.find("panic: ")
    return last[at:].splitlines()[0] if at >= 0 and all(word in last[at:] for word in _STORE) else ""


def _broken_networks(panic: str, *, needed: bool) -> Finding:
    tell = error if needed else warning
    return tell(
        _("The container engine cannot start: what it keeps of its networks is damaged, as after a power failure."),
        panic,
        _("Move it away, the engine makes it anew (networks of your own are to be made again): "
          "sudo mv {path} {path}.broken && sudo systemctl restart docker").format(path=_NETWORKS),
    )  # fmt: skip


def gpus(facts: Facts) -> Iterator[Finding]:
    """Asked only where there are both an engine and a GPU that works outside of containers."""
    seen = facts.probes.graphics()
    if not seen.there or seen.why_not is not None:
        yield fine(_("No GPU that containers could have."))
        return
    try:
        found = facts.probes.engine_gpus()
    except AilabError:
        yield fine(_("No container engine."))
        return
    yield from _means(found, needed=facts.needs_engine and facts.settings.environment.gpu != "off")
    if found.may_lose_devices:
        yield from _systemd()
    lost = facts.probes.lost_gpus()
    if lost:
        yield error(
            _("Containers have lost their GPUs: {names}.").format(names=", ".join(lost)),
            _NOTICE,
            _("Start them anew: ailab down, then ailab up. So that it does not happen again, see the other finding."),
        )


def _means(found: Means, *, needed: bool) -> Iterator[Finding]:
    tell = error if needed else warning
    if found.by_cdi:
        yield fine(_("Containers get GPUs by CDI."), ", ".join(found.specs))
    elif found.runtime:
        yield fine(_("Containers get GPUs by NVIDIA's runtime."))
    elif not found.toolkit:
        yield tell(
            _("Containers cannot have this machine's GPUs: NVIDIA's container toolkit is not installed."),
            "nvidia-ctk",
            _("Install the package nvidia-container-toolkit from NVIDIA's repository, then: "
              "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"),
        )  # fmt: skip
    elif found.configured:
        yield tell(
            _("The engine was configured for GPUs, and does not know of it yet."),
            "/etc/docker/daemon.json",
            _("Restart it: sudo systemctl restart docker"),
        )
    else:
        yield tell(
            _("Containers cannot have this machine's GPUs: the engine does not know NVIDIA's runtime."),
            "docker info: Runtimes",
            _("Configure it: sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"),
        )


def _systemd() -> Iterator[Finding]:
    yield warning(
        _("systemctl daemon-reload will take the GPUs away from containers that run."),
        f"CgroupDriver: systemd; {_NOTICE}",
        _('Set "exec-opts": ["native.cgroupdriver=cgroupfs"] in /etc/docker/daemon.json; or use CDI (Docker Engine 25 '
          "and later): sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"),
    )  # fmt: skip
