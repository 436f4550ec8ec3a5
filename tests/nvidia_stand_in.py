"""In the place of NVIDIA's container toolkit: a hook that the engine runs as it would run NVIDIA's, and the loss of
what it has let in. The device is one that any machine has, under a GPU's name."""

from __future__ import annotations

from pathlib import Path

# The device numbers of /dev/fuse (Documentation/admin-guide/devices.txt): opening it is harmless.
_DEVICE = "10:229"
# The engine puts it before the container's start (OCI runtime specification, prestart): the container's state comes on
# standard input. As NVIDIA's does, it makes the device in the container's /dev and lets it in by the cgroup.
_HOOK = f"""#!/bin/sh
set -e
state=$(cat)
pid=$(echo "$state" | sed 's/.*"pid":\\([0-9]*\\).*/\\1/')
bundle=$(echo "$state" | sed 's/.*"bundle":"\\([^"]*\\)".*/\\1/')
root=$(sed 's/.*"root":{{"path":"\\([^"]*\\)".*/\\1/' "$bundle/config.json")
nsenter --target "$pid" --mount mknod -m 666 "$root/dev/nvidia0" c {_DEVICE.replace(":", " ")}
group=$(sed -n 's/.*:devices://p' "/proc/$pid/cgroup")
echo 'c {_DEVICE} rwm' > "/sys/fs/cgroup/devices$group/devices.allow"
"""


def programs(folder: Path) -> Path:
    """A folder with the hook: an engine that finds it there takes requests for GPUs."""
    folder.mkdir()
    hook = folder / "nvidia-container-runtime-hook"
    hook.write_text(_HOOK)
    hook.chmod(0o755)
    return folder


def can_be_lost() -> bool:
    """Whether this machine's cgroups are those that the hook and `lose` write to."""
    return Path("/sys/fs/cgroup/devices/devices.deny").exists()


def lose(pid: int) -> None:
    """What systemctl daemon-reload does to the container that this process runs in."""
    groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    group = next(line.split(":", 2)[2] for line in groups if line.split(":", 2)[1] == "devices")
    Path(f"/sys/fs/cgroup/devices{group}/devices.deny").write_text(f"c {_DEVICE} rwm")
