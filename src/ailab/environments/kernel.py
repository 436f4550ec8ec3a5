"""The lab's own kernel: how one is started from a generation, and the proof that runs in it."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import time
from pathlib import Path
from typing import Any

from ailab import files
from ailab.caller_environment import passed_on
from ailab.environments.generations import Generation
from ailab.errors import AilabError
from ailab.i18n import _
from ailab.paths import LabPaths, private_folder
from ailab.stacks import Stack

# Jupyter's own name for the usual kernel: notebooks from anywhere ask for it, and get the lab's.
KERNEL_NAME = "python3"
# What kernels of workspaces and of jobs load as they start, from the PYTHONPATH that they are given.
EXTENSION = "ailab_magic"
START_SECONDS = 120.0
CELL_SECONDS = 300.0
_LOOK_SECONDS = 0.25
# [[1, 2], [3, 4]] times [[1, 1], [0, 1]], which our own proofs compute.
_PRODUCT = [[1.0, 3.0], [3.0, 7.0]]
_LOG_CHARACTERS = 4000
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def build_again() -> str:
    """What helps when an environment does not do what its lock promises."""
    return _("Build the environment anew: ailab env build --again")


def kernel_spec(program: Path | str, title: str, *options: str) -> dict[str, Any]:
    """A kernel.json whose kernel runs in the environment at `program`'s prefix (a path through a link is fine), with
    `options` of ipykernel's.

    It offers no debugger: ipykernel's listens on a TCP port of loopback, where any account of the machine could connect
    and run code as this one, without a word asked.
    """
    argv = [str(program), "-m", "ipykernel_launcher", *options, "-f", "{connection_file}"]
    return {"argv": argv, "display_name": title, "language": "python", "metadata": {"debugger": False}}


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


def run_cell(generation: Generation, lab: LabPaths, code: str, *, timeout: float = CELL_SECONDS) -> str:
    """Run `code` in a fresh kernel of `generation` and return what it printed. Raises `AilabError` when it fails.

    `timeout` is in seconds, for the cell alone.
    """
    from jupyter_client.manager import KernelManager

    folder = private_folder(private_folder(lab.run) / "kernels")
    connection = folder / f"verify-{os.getpid()}.json"
    log = connection.with_suffix(".log")
    manager = KernelManager(transport="ipc", connection_file=str(connection))
    spec = kernel_spec(generation.program, generation.title)
    manager._kernel_spec = manager.kernel_spec_manager.kernel_spec_class(**spec)
    environment = passed_on(os.environ) | kernel_environment(generation.program, lab)
    with log.open("wb") as sink:
        manager.start_kernel(env=environment, cwd=str(lab.root), stdout=sink, stderr=sink)
    client = manager.client()
    cell = _Cell()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=START_SECONDS)
        cell.run(client, manager, code, timeout)
    except RuntimeError as error:
        raise AilabError(
            _("The kernel did not run the proof: {reason}.").format(reason=_why(manager, error)),
            remedy=build_again(),
            detail=cell.output + log.read_text(errors="replace")[-_LOG_CHARACTERS:],
        ) from error
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
        log.unlink(missing_ok=True)
    if cell.traceback:
        raise AilabError(
            _("The proof failed in the lab's kernel."),
            remedy=build_again(),
            detail=_ESCAPES.sub("", cell.output + cell.traceback),
        )
    return cell.output


class _Cell:
    """One cell's run: what it printed, and its traceback if it failed."""

    def __init__(self) -> None:
        self.output = ""
        self.traceback = ""

    def run(self, client: Any, manager: Any, code: str, timeout: float) -> None:
        """Raises RuntimeError when the kernel dies or does not end in `timeout` seconds."""
        asked = client.execute(code, store_history=False)
        deadline = time.monotonic() + timeout
        while True:
            try:
                message = client.get_iopub_msg(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if not manager.is_alive():
                    raise RuntimeError(_("it died")) from None
                if time.monotonic() > deadline:
                    raise RuntimeError(_("it took longer than {seconds:g} s").format(seconds=timeout)) from None
                continue
            content = message["content"]
            if message["parent_header"].get("msg_id") != asked:
                continue
            if message["msg_type"] == "stream" and content["name"] == "stdout":
                self.output += content["text"]
            elif message["msg_type"] == "error":
                self.traceback = "\n".join(content["traceback"])
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                return


def _why(manager: Any, error: Exception) -> str:
    """Why a kernel gave no answer; the signal's name where one ended it."""
    process = getattr(manager.provisioner, "process", None)
    status = process.poll() if process is not None else None
    if status is None:
        return str(error)
    if status < 0:
        return _("it was ended by {signal}").format(signal=signal.Signals(-status).name)
    return _("it ended with status {status}").format(status=status)


def read_proof(output: str, generation: Generation) -> dict[str, Any]:
    """The document of `verify --json` from what a stack's proof printed; see `last_document`."""
    found = {"tensorflow": None, "python": generation.python, "gpus": [], "matmul": _PRODUCT} | last_document(output)
    ok = found["matmul"] == _PRODUCT
    return {"ok": ok, **found, "environment": generation.id, "lock": generation.lock}


def last_document(output: str) -> dict[str, Any]:
    """The JSON object that is the last line of what a proof printed."""
    try:
        return dict(json.loads(output.strip().splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        message = _("The proof's last line is no JSON object.")
        raise AilabError(
            message, remedy=_("See how a proof is written: docs/how-to/own-stack.md"), detail=output
        ) from None


def verify(generation: Generation, stack: Stack, lab: LabPaths) -> tuple[dict[str, Any], str]:
    """Prove a generation in the lab's own kernel: the document, and what a person reads of it."""
    output = run_cell(generation, lab, stack.proof_code())
    return read_proof(output, generation), "\n".join(output.strip().splitlines()[:-1])


def write_workspace_kernel(lab: LabPaths, title: str, *, seen_at: LabPaths | None = None) -> Path:
    """Describe the lab's kernel to JupyterLab: a folder for JUPYTER_PATH. `seen_at` is where a container finds the
    lab's files.

    The link to the current generation is resolved when a kernel starts, so that an open kernel keeps its generation
    through a switch and a new one gets the new one.
    """
    # With the magic that makes jobs; a kernel that cannot load it says so in its log, and does without.
    run = f'exec "$g/bin/python" -m ipykernel_launcher --ext={EXTENSION} -f "$1"'
    variables = 'PATH="$g/bin:$PATH" VIRTUAL_ENV="$g" UV_CONSTRAINT="$g/constraints.txt"'
    script = f'g=$(readlink -f "$0") && {variables} {run}'
    spec = kernel_spec("", title) | {
        "argv": ["/bin/sh", "-c", script, str((seen_at or lab).current), "{connection_file}"]
    }
    folder = lab.state / "jupyter" / "kernels" / KERNEL_NAME
    folder.mkdir(parents=True, exist_ok=True)
    files.replace(folder / "kernel.json", json.dumps(spec))
    return lab.state / "jupyter"
