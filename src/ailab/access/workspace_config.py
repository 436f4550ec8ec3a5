"""The Jupyter server's settings in a workspace: the lab's kernel alone, ipc, our extension, nothing from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Read by traitlets as a file, not imported as a module; both tell where it is.
LAB_EXTENSIONS = Path(__file__).parent / "jupyterlab" / "labextensions"

SETTINGS: dict[str, dict[str, Any]] = {
    "KernelManager": {"transport": "ipc"},
    # The lab's kernel has Jupyter's usual name, and so stands before the one of this Python.
    "KernelSpecManager": {"ensure_native_kernel": False, "allowed_kernelspecs": {"python3"}},
    "LabApp": {"extra_labextensions_path": [str(LAB_EXTENSIONS)]},
    "ServerApp": {
        "jpserver_extensions": {
            "jupyter_lsp": False,
            "notebook_shim": False,
            "ailab.access.kept_outputs": True,
            "ailab.access.ended_logins": True,
        },
        "kernel_websocket_connection_class": "ailab.access.kept_outputs.Connection",
    },
}

if "get_config" in globals():
    config = globals()["get_config"]()
    for name, traits in SETTINGS.items():
        config[name].update(traits)
