"""Runs one program that must not outlive its caller. Standard library only.

Run as `python -I -S tether.py FD PROGRAM [ARG...] -- [FOLDER...]`. FD is the reading end of a pipe whose other end only
the caller holds: when it closes, the caller is gone, however it ended. Then, and on SIGTERM, the program and all that
it has started, in whatever session, are ended, and the folders are removed: they hold the program's secrets.
"""

import ctypes
import os
import select
import shutil
import signal
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
# Less than `command.run` waits before it kills us.
PATIENCE = 1.5


def children_of(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
            return [int(child) for child in children.read().split()]
    except OSError:
        return []


def descendants(pid):
    """The living descendants of a process; what has lost its parent has become ours, for we are the subreaper."""
    found = children_of(pid)
    for child in found:
        found = found + descendants(child)
    return found


def reap(child):
    """Collect what has ended; the status of `child` once that is among it."""
    status = None
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == child:
            status = ended


def end_all(child):
    deadline = time.monotonic() + PATIENCE
    told = set()
    while left := descendants(os.getpid()):
        number = signal.SIGKILL if time.monotonic() >= deadline else signal.SIGTERM
        for pid in left:
            if (pid, number) not in told:
                told.add((pid, number))
                try:
                    os.kill(pid, number)
                except (ProcessLookupError, PermissionError):
                    pass
        reap(child)
        select.select([], [], [], 0.02)


def remove(folders):
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    caller, rest = int(sys.argv[1]), sys.argv[2:]
    # The last one: the program may have one of its own.
    at = len(rest) - 1 - rest[::-1].index("--")
    words, folders = rest[:at], rest[at + 1 :]
    os.set_inheritable(caller, False)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = os.fork()
    if child == 0:
        # Python ignores some, and what is ignored stays so in the program.
        for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        try:
            os.execvp(words[0], words)
        except OSError as error:
            os.write(2, f"{words[0]}: {error.strerror}\n".encode())
        os._exit(127)
    poller = select.poll()
    poller.register(caller, select.POLLIN)
    poller.register(woken, select.POLLIN)
    while (status := reap(child)) is None:
        if asked:
            end_all(child)
            if select.select([caller], [], [], 0)[0]:
                # It has ended meanwhile.
                remove(folders)
            sys.exit(128 + signal.SIGTERM)
        for descriptor, _event in poller.poll():
            if descriptor == caller:
                end_all(child)
                remove(folders)
                sys.exit(128 + signal.SIGKILL)
            os.read(woken, 4096)
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
