"""Runs a notebook as a job: cell by cell in the lab's kernel, each cell's outputs kept as soon as they are there.

Run as `python -m ailab.access.notebook_job OPTIONS -- NOTEBOOK` by a Python that has ailab, which need not be that of
the kernel. nbclient, which Jupyter's own converter runs notebooks with, talks to the kernel; papermill would bring
nothing more than its convention of parameters, which `notebook_cells` keeps.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from ailab import files
from ailab.access import notebook_cells
from ailab.i18n import _, use_language
from ailab.paths import LabPaths, private_folder

FAILED = 1
STOPPED = 128 + signal.SIGTERM
START_SECONDS = 120
# How long outputs may come after the kernel has said that the cell is done: many of them take their time.
OUTPUT_SECONDS = 60
# How often what a long cell has put out is kept while it runs.
KEEP_SECONDS = 30.0
_HEADING_CHARACTERS = 80
# nbformat has type hints in part alone.
_FORMAT: Any = nbformat
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Stopped(Exception):
    """The job was told to end between two cells."""


class Log:
    """The job's log, in which what a cell puts out comes as it comes."""

    def __init__(self) -> None:
        self._at_start = True

    def put(self, text: str) -> None:
        if text:
            print(text, end="", flush=True)
            self._at_start = text.endswith("\n")

    def say(self, text: str) -> None:
        """A sentence, or more, on lines of their own."""
        self.put(text if self._at_start else f"\n{text}")
        if not self._at_start:
            self.put("\n")

    def output(self, message: dict[str, Any]) -> None:
        """One output of a cell, as text where it can be had as text."""
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            self.put(content["text"])
        elif kind == "error":
            self.say(_ESCAPES.sub("", "\n".join(content["traceback"])))
        elif "text/plain" in content.get("data", {}):
            self.say(str(content["data"]["text/plain"]))


class Copy:
    """The executed copy: whole at every moment, and at most `KEEP_SECONDS` behind what the cells have put out."""

    def __init__(self, path: Path, notebook: Any, log: Log) -> None:
        self._path = path
        self._notebook = notebook
        self._log = log
        self._kept = 0.0
        # Why it could not be kept at the last try: a full disk ends no training.
        self.trouble = ""

    def begin(self, about: dict[str, Any]) -> None:
        """Make it, before anything has run. Raises OSError where it cannot be kept at all."""
        self._notebook.metadata["ailab"] = about | {"state": "running"}
        files.clear_unfinished(self._path)
        self._write()

    def keep(self, state: str = "") -> None:
        if state:
            self._notebook.metadata["ailab"]["state"] = state
        try:
            self._write()
            self.trouble = ""
        except OSError as error:
            if not self.trouble:
                self._log.say(_("{file} cannot be kept now: {reason}.").format(file=self._path, reason=error.strerror))
            self.trouble = str(error)

    def keep_now_and_then(self) -> None:
        if time.monotonic() - self._kept > KEEP_SECONDS:
            self.keep()

    def _write(self) -> None:
        # Whatever comes of it, the next try has time.
        self._kept = time.monotonic()
        files.replace(self._path, _FORMAT.v4.writes(self._notebook) + "\n")


class Run(NotebookClient):
    """A notebook's run: nbclient's, with a log, a copy, a kernel of our own, and an end when the job is stopped."""

    def __init__(self, notebook: Any, *, kernel: dict[str, Any], connection: Path, log: Log, copy: Copy) -> None:
        super().__init__(
            notebook, timeout=None, startup_timeout=START_SECONDS, iopub_timeout=OUTPUT_SECONDS, kernel_name="python3"
        )
        self.on_notebook_start = self._take_signals
        self._kernel, self._connection, self._log, self._copy = kernel, connection, log, copy
        self._total = sum(map(notebook_cells.is_run, notebook.cells))
        self._interrupting: asyncio.Task[None] | None = None
        self._manager: Any = None
        self.number = 0
        self.stopped = False

    def create_kernel_manager(self) -> Any:
        """One that listens on no TCP port, as in a workspace."""
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import AsyncKernelManager

        self.km = AsyncKernelManager(transport="ipc", connection_file=str(self._connection), kernel_name="python3")
        self.km._kernel_spec = KernelSpec(**self._kernel)
        self._manager = self.km
        return self.km

    def _take_signals(self, **_about: Any) -> None:
        """In the place of nbclient's own, which kills the kernel and whatever the cell would save."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop)

    def _stop(self) -> None:
        """The cell that runs gets a KeyboardInterrupt, in which it can save its state; no other is begun."""
        self.stopped = True
        self._interrupting = asyncio.ensure_future(self._manager.interrupt_kernel())

    async def async_execute_cell(self, cell: Any, cell_index: int, *words: Any, **more: Any) -> Any:
        if self.stopped:
            raise Stopped
        if not notebook_cells.is_run(cell):
            return cell
        self.number += 1
        heading = cell.source.strip().partition("\n")[0][:_HEADING_CHARACTERS]
        self._log.say(f"[{self.number}/{self._total}] {heading}")
        try:
            return await super().async_execute_cell(cell, cell_index, *words, **more)
        except DeadKernelError:
            died = self.how_it_died()
            cell.outputs.append(_FORMAT.v4.new_output("error", ename="DeadKernelError", evalue=died, traceback=[died]))
            raise
        finally:
            self._copy.keep()

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        made = super().output(outs, msg, display_id, cell_index)
        self._log.output(msg)
        if made is not None and outs and outs[-1] is made:
            notebook_cells.join_text(outs)
        self._copy.keep_now_and_then()
        return made

    def death(self) -> int:
        """The kernel's exit status, 128 + n after signal n; 1 where it is not known."""
        process = getattr(self._manager.provisioner, "process", None)
        status = process.poll() if process is not None else None
        return FAILED if not status else status if status > 0 else 128 - status

    def how_it_died(self) -> str:
        status = self.death()
        try:
            name = signal.Signals(status - 128).name
        except ValueError:
            return _("The kernel ended by itself, with status {status}.").format(status=status)
        return _("The kernel was ended by {signal}.").format(signal=name)


def main(argv: list[str]) -> int:
    """Run one notebook; the job's exit status."""
    use_language(os.environ.get("AILAB_LANGUAGE"))
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # nobody has replaced it
    asked = _asked(argv)
    log = Log()
    try:
        notebook = _FORMAT.read(asked.notebook, as_version=4)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, nbformat.ValidationError) as error:
        log.say(_("{file} cannot be read: {reason}.").format(file=asked.notebook, reason=error))
        return FAILED
    notebook_cells.clear(notebook)
    notebook_cells.inject(notebook, asked.parameters)
    for name in notebook_cells.unknown(notebook, asked.parameters):
        log.say(_("The notebook has no parameter {name} in its cell tagged parameters.").format(name=name))
    output = Path(asked.output).absolute()
    copy = Copy(output, notebook, log)
    try:
        copy.begin(_about(asked))
    except OSError as error:
        log.say(_("{file} cannot be kept: {reason}.").format(file=output, reason=error.strerror))
        return FAILED
    run = Run(notebook, kernel=asked.kernel, connection=_connection(), log=log, copy=copy)
    status, state = _run(run, log, folder=Path(asked.notebook).absolute().parent)
    copy.keep(state)
    log.say(_("The executed notebook: {file}").format(file=output))
    return status or (FAILED if copy.trouble else 0)


def _asked(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="notebook_job", allow_abbrev=False)
    parser.add_argument("--kernel", type=json.loads, required=True)
    parser.add_argument("--parameters", type=json.loads, default={})
    parser.add_argument("--output", required=True)
    parser.add_argument("notebook")
    return parser.parse_args(argv)


def _about(asked: argparse.Namespace) -> dict[str, Any]:
    """What the executed copy says of its run."""
    job = {"job": int(os.environ.get("AILAB_JOB", "0")), "attempt": int(os.environ.get("AILAB_ATTEMPT", "1"))}
    return job | {"notebook": Path(asked.notebook).name, "parameters": asked.parameters}


def _connection() -> Path:
    """Where the kernel is told how to talk to us; beside it come its sockets. A killed attempt may have left some."""
    run = private_folder(LabPaths(Path(os.environ["AILAB_LAB"])).run)
    name = f"job-{os.environ.get('AILAB_JOB') or os.getpid()}"
    folder = private_folder(run / "kernels")
    for left in (*folder.glob(f"{name}.json"), *folder.glob(f"{name}-ipc-*")):
        left.unlink(missing_ok=True)
    return folder / f"{name}.json"


def _run(run: Run, log: Log, *, folder: Path) -> tuple[int, str]:
    """Run the cells; the exit status and the state of the run. Relative paths are the notebook's, as in JupyterLab."""
    try:
        asyncio.run(run.async_execute(cwd=str(folder)))
    except (CellExecutionError, DeadKernelError, Stopped) as error:
        if run.stopped:
            log.say(_("Stopped at cell {number}.").format(number=run.number))
            return STOPPED, "stopped"
        if isinstance(error, DeadKernelError):
            log.say(run.how_it_died())
        log.say(_("Cell {number} failed; the cells after it were not run.").format(number=run.number))
        return (run.death() if isinstance(error, DeadKernelError) else FAILED), "failed"
    except RuntimeError as error:
        log.say(_("The kernel did not start: {reason}.").format(reason=error))
        return FAILED, "failed"
    return (STOPPED, "stopped") if run.stopped else (0, "done")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
