"""The lab's own kernel: how one is started from a generation, and the proof that runs in it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from ailab.environments.generations import Generation
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.paths import LabPaths, private_folder
from ailab.stacks import Stack

KERNEL_NAME = "ailab"
START_SECONDS = 120.0
CELL_SECONDS = 300.0
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def kernel_spec(program: Path | str, title: str) -> dict[str, Any]:
    """A kernel.json whose kernel runs in the environment at `program`'s prefix (a path through a link is fine)."""
    argv = [str(program), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    return {"argv": argv, "display_name": title, "language": "python", "metadata": {"debugger": True}}


def kernel_environment(program: Path, lab: LabPaths) -> dict[str, str]:
    """What a kernel's environment says beside the task's own: its programs first, where logs and models belong."""
    folder = program.parent
    return {
        "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(folder.parent),
        "UV_CONSTRAINT": str(folder.parent / "constraints.txt"),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "AILAB_LOGS": str(lab.logs),
        "AILAB_MODELS": str(lab.root / "models"),
    }


def run_cell(generation: Generation, lab: LabPaths, code: str) -> str:
    """Run `code` in a fresh kernel of `generation` and return what it printed. Raises `AilabError` when it fails."""
    from jupyter_client.manager import KernelManager

    folder = private_folder(private_folder(lab.run) / "kernels")
    manager = KernelManager(transport="ipc", connection_file=str(folder / f"verify-{os.getpid()}.json"))
    spec = kernel_spec(generation.program, generation.title)
    manager.kernel_spec_manager.whitelist = set()
    manager._kernel_spec = manager.kernel_spec_manager.kernel_spec_class(**spec)
    manager.start_kernel(env=os.environ | kernel_environment(generation.program, lab), cwd=str(lab.root))
    client = manager.client()
    printed: list[str] = []
    try:
        client.start_channels()
        client.wait_for_ready(timeout=START_SECONDS)
        reply = client.execute_interactive(code, timeout=CELL_SECONDS, output_hook=lambda message: _collect(message, printed))
    except (RuntimeError, TimeoutError) as error:
        raise AilabError(
            _("The kernel did not run the proof: {reason}.").format(reason=error),
            remedy=_("Build the environment anew: ailab env build"),
            detail="".join(printed),
        ) from error
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
    output = "".join(printed)
    if reply["content"]["status"] != "ok":
        raise AilabError(
            _("The proof failed in the lab's kernel."),
            remedy=_("Build the environment anew: ailab env build"),
            detail=_ESCAPES.sub("", output + "\n".join(reply["content"].get("traceback", []))),
        )
    return output


def _collect(message: dict[str, Any], printed: list[str]) -> None:
    if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
        printed.append(message["content"]["text"])


def read_proof(output: str, generation: Generation) -> dict[str, Any]:
    """The document of `verify --json` from what a stack's proof printed; its last line is JSON."""
    try:
        found = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise AilabError(_("The proof printed nothing that can be read."), detail=output) from None
    ok = found["matmul"] == [[1.0, 3.0], [3.0, 7.0]]
    return {"ok": ok, **found, "environment": generation.id, "lock": generation.lock}


def verify(generation: Generation, stack: Stack, lab: LabPaths) -> tuple[dict[str, Any], str]:
    """Prove a generation in the lab's own kernel: the document, and what a person reads of it."""
    output = run_cell(generation, lab, stack.proof_code())
    return read_proof(output, generation), "\n".join(output.strip().splitlines()[:-1])


def write_workspace_kernel(lab: LabPaths, title: str) -> Path:
    """Describe the lab's kernel to JupyterLab: a folder for JUPYTER_PATH.

    The link to the current generation is resolved when a kernel starts, so that an open kernel keeps its generation
    through a switch and a new one gets the new one.
    """
    script = 'g=$(readlink -f "$0") && PATH="$g/bin:$PATH" VIRTUAL_ENV="$g" exec "$g/bin/python" -m ipykernel_launcher -f "$1"'
    spec = kernel_spec("", title) | {"argv": ["/bin/sh", "-c", script, str(lab.current), "{connection_file}"]}
    folder = lab.state / "jupyter" / "kernels" / KERNEL_NAME
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / "kernel.json.new"
    unfinished.write_text(json.dumps(spec), encoding="utf-8")
    unfinished.replace(folder / "kernel.json")
    return lab.state / "jupyter"
