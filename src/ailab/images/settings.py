"""The lab.toml that goes into an image, without what only its machine means; and the one that comes out again."""

from __future__ import annotations

from ailab.images.dockerfile import WEB_PORT

# What the engine does for a container: its limits, its mounts, its network; and the way to downloads, of which there
# are none.
_LEFT_OUT = ("resources", "mounts", "mirrors", "image", "access", "backup", "monitoring")


def image_settings(text: str, *, gpu: str) -> str:
    """`text`, a lab.toml, for a lab that stands alone in a container; comments stay. `gpu` is as in [environment]."""
    import tomlkit

    document = tomlkit.parse(text)
    for table in _LEFT_OUT:
        document.pop(table, None)
    lab = document.setdefault("lab", tomlkit.table())
    lab["runtime"] = "process"
    environment = document.setdefault("environment", tomlkit.table())
    environment["python"] = ""
    environment["gpu"] = gpu
    access = tomlkit.table()
    access["bind"] = "0.0.0.0"  # noqa: S104  of the container's own network; what is let in is what it publishes
    access["port"] = WEB_PORT
    document["access"] = access
    return tomlkit.dumps(document)


def host_settings(text: str) -> str:
    """`text`, the lab.toml of an image, for a machine that runs the lab's tasks in it. What it says of a machine is
    not of this one: the container's port, and whatever else somebody has put there, as folders to mount."""
    import tomlkit

    document = tomlkit.parse(text)
    for table in _LEFT_OUT:
        document.pop(table, None)
    document.setdefault("lab", tomlkit.table())["runtime"] = "docker"
    return tomlkit.dumps(document)
