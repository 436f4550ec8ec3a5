"""Control groups, both versions, from files as the kernel shows them. The real ones: tests/contract, on an engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from ailab.resources.detect import Machine, detect_machine
from ailab.runtimes import cgroup
from ailab.runtimes.base import Limits
from ailab.runtimes.limits import variables_under

PID = 4242
V2_MOUNTS = """\
24 30 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:13 - proc proc rw
35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
"""
V1_MOUNTS = """\
33 24 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec - tmpfs tmpfs ro,mode=755
34 33 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
36 33 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:15 - cgroup cgroup rw,cpu,cpuacct
37 33 0:32 / /sys/fs/cgroup/memory rw,relatime shared:16 - cgroup cgroup rw,memory
38 33 0:33 / /sys/fs/cgroup/pids rw,relatime shared:17 - cgroup cgroup rw,pids
39 33 0:34 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
"""
# Within a container: of each hierarchy its own group is mounted, and in version 1 it still hears its whole path.
V1_INSIDE = """\
812 810 0:31 /docker/6f0c /sys/fs/cgroup/cpu,cpuacct ro,nosuid,nodev,relatime master:15 - cgroup cgroup rw,cpu,cpuacct
813 810 0:32 /docker/6f0c /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:16 - cgroup cgroup rw,memory
"""
SCOPE = "system.slice/docker-6f0c.scope"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    group = f"sys/fs/cgroup/{SCOPE}"
    stat = "anon 104857600\nfile 62914560\ninactive_file 52428800\nactive_file 10485760\n"
    files = {
        f"proc/{PID}/cgroup": f"0::/{SCOPE}\n",
        "proc/self/mountinfo": V2_MOUNTS,
        f"{group}/memory.max": "209715200\n",
        f"{group}/memory.current": "167772160\n",
        f"{group}/memory.peak": "209715200\n",
        f"{group}/memory.stat": stat,
        f"{group}/memory.events": "low 0\nhigh 0\nmax 37\noom 2\noom_kill 1\noom_group_kill 0\n",
        f"{group}/cpu.max": "150000 100000\n",
        f"{group}/cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n",
        f"{group}/pids.max": "4096\n",
        f"{group}/cgroup.procs": "4242\n4250\n",
    }
    write(tmp_path, files)
    return tmp_path


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    base = "sys/fs/cgroup"
    own = "docker/6f0c"
    files = {
        f"proc/{PID}/cgroup": f"5:pids:/{own}\n4:memory:/{own}\n2:cpu,cpuacct:/{own}\n1:name=systemd:/x\n0::/{own}\n",
        "proc/self/mountinfo": V1_MOUNTS,
        f"{base}/memory/{own}/memory.limit_in_bytes": "209715200\n",
        f"{base}/memory/{own}/memory.usage_in_bytes": "167772160\n",
        f"{base}/memory/{own}/memory.max_usage_in_bytes": "209715200\n",
        f"{base}/memory/{own}/memory.stat": "cache 62914560\ninactive_file 1\ntotal_inactive_file 52428800\n",
        f"{base}/memory/{own}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        f"{base}/memory/{own}/cgroup.procs": "4242\n4250\n",
        f"{base}/cpu,cpuacct/{own}/cpu.cfs_quota_us": "150000\n",
        f"{base}/cpu,cpuacct/{own}/cpu.cfs_period_us": "100000\n",
        f"{base}/cpu,cpuacct/{own}/cpuacct.usage": "2500000000\n",
        f"{base}/pids/{own}/pids.max": "4096\n",
        f"{base}/unified/{own}/cgroup.procs": "",
    }
    write(tmp_path, files)
    return tmp_path


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_both_say_the_same(version: str, request: pytest.FixtureRequest) -> None:
    group = cgroup.group_of(PID, request.getfixturevalue(version))
    assert group is not None
    assert cgroup.limits(group, 64) == Limits(1.5, 200 * 2**20, 4096, 64)
    assert cgroup.memory_bytes(group) == 110 * 2**20, "without what the kernel would drop"
    assert cgroup.memory_peak_bytes(group) == 200 * 2**20
    assert cgroup.cpu_seconds(group) == 2.5
    assert cgroup.processes(group) == [4242, 4250]
    assert cgroup.memory_kills(group) == 1


def test_no_limit_is_0_in_both(v1: Path) -> None:
    memory, cpu, pids = (v1 / f"sys/fs/cgroup/{name}/docker/6f0c" for name in ("memory", "cpu,cpuacct", "pids"))
    (memory / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (cpu / "cpu.cfs_quota_us").write_text("-1\n")
    (pids / "pids.max").write_text("max\n")
    group = cgroup.group_of(PID, v1)
    assert group is not None and cgroup.limits(group) == Limits()


def test_no_limit_in_version_2(v2: Path) -> None:
    for name, text in (("memory.max", "max\n"), ("cpu.max", "max 100000\n"), ("pids.max", "max\n")):
        (v2 / "sys/fs/cgroup" / SCOPE / name).write_text(text)
    (v2 / "sys/fs/cgroup" / SCOPE / "memory.peak").unlink()
    group = cgroup.group_of(PID, v2)
    assert group is not None and cgroup.limits(group) == Limits()
    assert cgroup.memory_peak_bytes(group) == 0, "a kernel before 5.19"


def test_a_group_that_is_gone_or_cannot_be_read_is_none(v2: Path) -> None:
    assert cgroup.group_of(1, v2) is None
    (v2 / f"proc/{PID}/cgroup").write_text("0::/../elsewhere/x\n")
    assert cgroup.group_of(PID, v2) is None


def test_a_container_sees_its_own_limits(tmp_path: Path) -> None:
    base = "sys/fs/cgroup"
    files = {
        "proc/self/cgroup": "4:memory:/docker/6f0c\n2:cpu,cpuacct:/docker/6f0c\n",
        "proc/self/mountinfo": V1_INSIDE,
        f"{base}/memory/memory.limit_in_bytes": "209715200\n",
        f"{base}/memory/cgroup.procs": "1\n",
        f"{base}/cpu,cpuacct/cpu.cfs_quota_us": "100000\n",
        f"{base}/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        f"{base}/cpu,cpuacct/cgroup.procs": "1\n",
    }
    write(tmp_path, files)
    assert cgroup.own_limits(tmp_path) == Limits(1.0, 200 * 2**20)


def test_the_least_limit_holds_of_the_groups_around(v2: Path) -> None:
    scope = f"sys/fs/cgroup/{SCOPE}"
    files = {
        "proc/self/cgroup": f"0::/{SCOPE}/kernels\n",
        f"{scope}/kernels/cgroup.procs": "7\n",
        f"{scope}/kernels/memory.max": "max\n",
        f"{scope}/kernels/cpu.max": "100000 100000\n",
        "sys/fs/cgroup/system.slice/cgroup.procs": "",
        "sys/fs/cgroup/system.slice/memory.max": "104857600\n",
        "sys/fs/cgroup/cgroup.procs": "1\n",
    }
    write(v2, files)
    assert cgroup.own_limits(v2) == Limits(1.0, 100 * 2**20)


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert cgroup.own_limits(tmp_path) == Limits()


@pytest.mark.parametrize(
    ("quota", "cpus", "expected"), [(0.0, 8, None), (1.0, 8, "1"), (1.5, 8, "2"), (0.5, 2, "1"), (8.0, 8, None)]
)
def test_threads_follow_a_quota_that_is_less_than_what_is_seen(quota: float, cpus: int, expected: str | None) -> None:
    assert variables_under(quota, cpus).get("OMP_NUM_THREADS") == expected


def test_the_machine_is_as_large_as_it_may_be_used() -> None:
    whole = detect_machine()
    assert detect_machine(0.5, 2**20) == Machine(1, 2**20, whole.gpus)
    assert detect_machine(1000.0, 2**60) == whole
