"""The one door to other programs: quiet on success, the program's whole output on failure, secrets never shown."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ailab.errors import AilabError
from ailab.i18n import _

_TETHER = Path(__file__).with_name("tether.py")
_secrets: set[str] = set()


def keep_secret(value: str) -> str:
    """From now on `value` is shown as *** in every command line and output that an error carries. Returns `value`."""
    if len(value) >= 6:
        _secrets.add(value)
    return value


def redact(text: str) -> str:
    """`text` without any of the secrets that this process knows."""
    for secret in _secrets:
        text = text.replace(secret, "***")
    return text


@dataclass(frozen=True)
class Finished:
    """A program that ended: its exit status (negative: the signal) and what it printed."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return (self.stdout + self.stderr).strip()


class CommandFailed(AilabError):
    """A program that we called ended with a status other than 0, ran past its timeout, or is not there."""

    kind = "command-failed"

    def __init__(self, message: str, *, finished: Finished, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy, detail=redact(finished.output))
        self.finished = finished


def _shown(argv: Sequence[str]) -> str:
    return redact(shlex.join(argv))


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    on_line: Callable[[str], None] | None = None,
    merged: bool = False,
    check: bool = True,
    keep_open: Sequence[int] = (),
    tethered: Sequence[Path] | None = None,
) -> Finished:
    """Run a program to its end and return what it printed.

    `timeout` is in seconds; past it the program's whole process group is killed. `env` replaces the environment. With
    `on_line`, each line of standard error is handed over as it comes (progress); with `merged`, of standard output too,
    and all that it printed is `stdout`. With `check`, a status other than 0 raises `CommandFailed`; a missing program
    and a timeout always do. The program inherits the file descriptors `keep_open`: a lock (flock) on one of them is
    held until the program ends, even when we are killed. Ctrl-C ends the program before it is passed on. With
    `tethered`, even our kill -9 ends the program and all that it has started, and then removes those folders.
    """
    words = tuple(str(word) for word in argv)
    ours = theirs = -1
    if tethered is not None:
        theirs, ours = os.pipe2(os.O_CLOEXEC)
    try:
        process = subprocess.Popen(
            words if tethered is None else _on_tether(words, theirs, tethered),
            env=None if env is None else dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=(*keep_open, *([theirs] if tethered is not None else [])),
        )
    except OSError as error:
        _close(ours, theirs)
        message = _("Cannot run {program}: {reason}.").format(program=words[0], reason=error.strerror)
        raise CommandFailed(message, finished=Finished(words, 127, "", "")) from error
    _close(theirs)
    try:
        stdout, stderr = _communicate(process, stdin, timeout, on_line)
    except subprocess.TimeoutExpired as error:
        _kill_group(process)
        message = _("{command} did not end within {seconds:g} s.").format(command=_shown(words), seconds=timeout)
        raise CommandFailed(message, finished=Finished(words, -signal.SIGKILL, "", "")) from error
    except BaseException:
        _kill_group(process)
        raise
    finally:
        _close(ours)
    finished = Finished(words, process.returncode, stdout, stderr)
    if check and finished.status != 0:
        message = _("{command} failed with status {status}.").format(command=_shown(words), status=finished.status)
        raise CommandFailed(message, finished=finished)
    return finished


def _on_tether(words: Sequence[str], pipe: int, folders: Sequence[Path]) -> list[str]:
    return [sys.executable, "-I", "-S", str(_TETHER), str(pipe), *words, "--", *map(str, folders)]


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)


def _communicate(
    process: subprocess.Popen[str], stdin: str | None, timeout: float, on_line: Callable[[str], None] | None
) -> tuple[str, str]:
    if on_line is None:
        stdout, stderr = process.communicate(stdin, timeout=timeout)
        return stdout, stderr or ""
    assert process.stdout is not None
    lines: list[str] = []
    out: list[str] = []
    readers = [
        threading.Thread(target=_read_lines, args=(process.stderr or process.stdout, lines, on_line), daemon=True)
    ]
    if process.stderr is not None:
        quiet = threading.Thread(target=lambda stream: out.append(stream.read()), args=(process.stdout,), daemon=True)
        readers.append(quiet)
    for reader in readers:
        reader.start()
    if stdin is not None and process.stdin is not None:
        process.stdin.write(stdin)
        process.stdin.close()
    process.wait(timeout)
    for reader in readers:
        reader.join(5)
    return ("".join(out), "".join(lines)) if process.stderr is not None else ("".join(lines), "")


def _read_lines(stream: IO[str], lines: list[str], on_line: Callable[[str], None]) -> None:
    for line in stream:
        lines.append(line)
        on_line(redact(line.rstrip("\n")))


def _kill_group(process: subprocess.Popen[str]) -> None:
    """End a program and all it started; it leads a session of its own."""
    for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
        else:
            break


def start_at_terminal(
    argv: Sequence[str | Path], terminal: int, *, env: Mapping[str, str], cwd: Path
) -> subprocess.Popen[bytes]:
    """Start a program with the terminal open at the descriptor `terminal` as its own, in a session of its own."""
    words = [str(word) for word in argv]
    try:
        # In the child, before the program: what login(1) does. No thread of ours holds what it would need.
        return subprocess.Popen(words, env=dict(env), cwd=cwd, preexec_fn=lambda: os.login_tty(terminal))
    except OSError as error:
        message = _("Cannot run {program}: {reason}.").format(program=words[0], reason=error.strerror)
        raise CommandFailed(message, finished=Finished(tuple(words), 127, "", "")) from error


def start_detached(
    argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a program that outlives us: a session of its own, no terminal, its output appended to `log`."""
    with log.open("ab") as sink:
        return subprocess.Popen(
            [str(word) for word in argv],
            env=None if env is None else dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
