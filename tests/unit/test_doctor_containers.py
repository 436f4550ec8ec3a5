"""What the doctor tells of the container engine and of GPUs in containers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from patients import facts_of, severities

from ailab.doctor import containers
from ailab.doctor.facts import Facts, Graphics
from ailab.doctor.findings import Severity
from ailab.engine import EngineError
from ailab.engine_gpus import Means

OK, WARNING, ERROR = Severity.ok, Severity.warning, Severity.error
TESLA = Graphics(("Tesla T4",), True, "NVIDIA 535", None)
NOTHING = Means(toolkit=False, runtime=False, specs=(), cdi=False, systemd=False, configured=False)
INFO = {"ServerVersion": "20.10.24", "CgroupVersion": "2", "CgroupDriver": "systemd", "Driver": "overlay2"}


# As Docker Engine 20.10.24 wrote it when a page of local-kv.db had been overwritten, the middle left out.
PANIC = """\
time="2026-11-25T11:10:58Z" level=info msg="Starting up"
time="2026-11-25T11:10:58Z" level=info msg="containerd successfully booted in 0.042019s"
panic: invalid freelist page: 562958543486978, page type is leaf

goroutine 1 [running]:
go.etcd.io/bbolt.(*freelist).read(0x0?, 0x7fdcc1e53000)
github.com/docker/libkv/store/boltdb.(*BoltDB).getDBhandle(0xc000c0b630)
github.com/docker/libnetwork/datastore.(*datastore).List(0xc0004e6d80?, {0xc000218120?, 0x6?}, {0x558bf7ba0440?})
github.com/docker/docker/daemon.(*Daemon).initNetworkController(0xc0009c6780, 0xc0001bbb80, 0xc000507b60)
main.main()
"""


def no_engine() -> Any:
    raise EngineError("There is no container engine.", remedy="Install one.")


def facts(folder: Path, *, needed: bool = True, lost: tuple[str, ...] = (), **probes: Any) -> Facts:
    made = facts_of(folder, needs_engine=needed)
    return replace(made, probes=replace(made.probes, graphics=lambda: TESLA, lost_gpus=lambda: lost, **probes))


def test_no_engine_is_as_bad_as_the_lab_needs_it(tmp_path: Path) -> None:
    (needed,) = containers.engine(facts(tmp_path, engine=no_engine, engine_log=str))
    assert (needed.severity, needed.remedy) == (ERROR, "Install one.")
    (unneeded,) = containers.engine(facts(tmp_path, needed=False, engine=no_engine, engine_log=str))
    assert unneeded.severity == OK and not unneeded.remedy
    (there,) = containers.engine(facts(tmp_path, engine=lambda: INFO))
    assert there.severity == OK and "20.10.24" in there.message and there.evidence == "cgroup v2, systemd, overlay2"


def test_an_engine_whose_networks_are_damaged(tmp_path: Path) -> None:
    broken = facts(tmp_path, engine=no_engine, engine_log=lambda: PANIC)
    (found,) = containers.engine(broken)
    assert found.severity == ERROR and found.evidence.startswith("panic: invalid freelist page")
    assert "mv /var/lib/docker/network/files/local-kv.db" in found.remedy
    (unneeded,) = containers.engine(replace(broken, needs_engine=False))
    assert unneeded.severity == WARNING
    since = PANIC + 'time="2026-11-25T11:20:58Z" level=info msg="Starting up"\n'
    for log in (since, PANIC.replace("libnetwork", "containerd"), "panic: other", ""):
        (other,) = containers.engine(facts(tmp_path, engine=no_engine, engine_log=lambda log=log: log))
        assert other.remedy == "Install one."


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (NOTHING, "nvidia-container-toolkit"),
        (replace(NOTHING, toolkit=True), "nvidia-ctk runtime configure"),
        (replace(NOTHING, toolkit=True, configured=True), "systemctl restart docker"),
    ],
    ids=["no toolkit", "not configured", "not restarted"],
)
def test_what_gpus_in_containers_lack(tmp_path: Path, found: Means, said: str) -> None:
    (needed,) = containers.gpus(facts(tmp_path, engine_gpus=lambda: found))
    assert needed.severity == ERROR and said in needed.remedy
    (unneeded,) = containers.gpus(facts(tmp_path, needed=False, engine_gpus=lambda: found))
    assert unneeded.severity == WARNING


def test_gpus_that_daemon_reload_would_take_away(tmp_path: Path) -> None:
    found = replace(NOTHING, toolkit=True, runtime=True, systemd=True)
    how, risk = containers.gpus(facts(tmp_path, engine_gpus=lambda: found))
    assert (how.severity, risk.severity) == (OK, WARNING)
    assert "native.cgroupdriver=cgroupfs" in risk.remedy and "issues/48" in risk.evidence
    by_cdi = replace(found, cdi=True, specs=("/etc/cdi/nvidia.yaml",))
    assert severities(containers.gpus(facts(tmp_path, engine_gpus=lambda: by_cdi))) == [OK]


def test_gpus_that_are_lost(tmp_path: Path) -> None:
    found = replace(NOTHING, toolkit=True, runtime=True, systemd=True)
    *_others, lost = containers.gpus(facts(tmp_path, engine_gpus=lambda: found, lost=("ailab-1-workspace-li",)))
    assert lost.severity == ERROR and "ailab-1-workspace-li" in lost.message and "ailab up" in lost.remedy


def test_without_a_gpu_or_without_an_engine_nothing_is_asked(tmp_path: Path) -> None:
    none = Graphics((), False, "", None)
    asked = facts(tmp_path, engine_gpus=no_engine)
    assert severities(containers.gpus(replace(asked, probes=replace(asked.probes, graphics=lambda: none)))) == [OK]
    assert severities(containers.gpus(asked)) == [OK]
