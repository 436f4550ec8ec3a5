"""The Jupyter server's settings in a workspace: one kernel (the lab's), ipc instead of TCP, nothing from outside."""

from __future__ import annotations

from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {
    "KernelManager": {"transport": "ipc"},
    # The lab's kernel has Jupyter's usual name, and so stands before the one of this Python.
    "KernelSpecManager": {"ensure_native_kernel": False, "allowed_kernelspecs": {"python3"}},
    "ServerApp": {
        "jpserver_extensions": {"jupyter_lsp": False, "notebook_shim": False},
    },
}

if "get_config" in globals():
    config = globals()["get_config"]()
    for name, traits in SETTINGS.items():
        config[name].update(traits)
