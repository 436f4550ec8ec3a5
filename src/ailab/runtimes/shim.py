"""The shim: owns one task's process, keeps its log and writes its exit status. Standard library only.

Run as `python -I -S shim.py FOLDER` in a session of its own. FOLDER/spec.json says what to run. It holds a lock on
FOLDER/lock for its life, which is how others know that it lives; a pid alone may be another's by now. It is the
reaper of all that the task starts (PR_SET_CHILD_SUBREAPER), so nothing is left when it says that the task has ended;
and the task dies with it (PR_SET_PDEATHSIG), so no task runs without somebody to write its end down.

A task of a gang runs in a network of the gang's own. Its shim does too: the network lasts as long as one of them.
`python -I -S shim.py --try-network` tells by its status, and on standard error, whether there can be such a network.
"""

import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import struct
import sys
import time

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
# Of netdevice(7) and capget(2).
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
CAPABILITY_VERSION_3 = 0x20080522
TICK = 0.2
JOIN_SECONDS = 5.0


def now():
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}+00:00"


def start_time(pid):
    """When a process started, in clock ticks since boot (proc(5), stat field 22): with the pid, its identity."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        return int(stat.read().rpartition(")")[2].split()[19])


def write(folder, name, value):
    """Replace a file whole or not at all, and have it on the disk."""
    path = os.path.join(folder, name)
    with open(path + ".new", "w", encoding="utf-8") as sink:
        json.dump(value, sink)
        sink.flush()
        os.fsync(sink.fileno())
    os.replace(path + ".new", path)


def reserve(folder):
    """Hold room on the disk for the exit status, which must not be lost when the task has filled the disk."""
    descriptor = os.open(os.path.join(folder, "reserve"), os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, 16384)
    except OSError:
        pass
    os.close(descriptor)


def call(function, *words):
    """Call a function of libc's; raises OSError where it fails."""
    if function(*words) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def enter_network(gang):
    """Enter the network of the task in the folder `gang`; a new one where that has ended, or where there is no `gang`.

    Both are namespaces (user_namespaces(7), network_namespaces(7)) that an account without privileges may make: in one
    there is this account alone, under its own number, in the other loopback alone. No capability in them is kept.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not (gang and join_network(libc, gang)):
        make_network(libc)
    give_up_capabilities(libc)


def make_network(libc):
    uid, gid = os.geteuid(), os.getegid()
    call(libc.unshare, CLONE_NEWUSER | CLONE_NEWNET)
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as some_socket:
        fcntl.ioctl(some_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
    # The last of these says to those who join that all is there.
    for name, text in (("setgroups", "deny"), ("gid_map", f"{gid} {gid} 1"), ("uid_map", f"{uid} {uid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def join_network(libc, gang):
    """Whether there was a network to enter. A shim that has just begun may still be making it."""
    deadline = time.monotonic() + JOIN_SECONDS
    while time.monotonic() < deadline:
        pid = holder(gang)
        if pid is None:
            return False
        try:
            user = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            net = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            with open(f"/proc/{pid}/uid_map", encoding="ascii") as file:
                is_made = file.read() and not os.path.samestat(os.fstat(user), os.stat("/proc/self/ns/user"))
        except FileNotFoundError:
            continue
        # The pid was its own when the descriptors were opened only if it still is.
        if is_made and holder(gang) == pid:
            call(libc.setns, user, CLONE_NEWUSER)
            call(libc.setns, net, CLONE_NEWNET)
            return True
        os.close(user)
        os.close(net)
        select.select([], [], [], 0.01)
    raise TimeoutError("the network of its gang is not there")


def holder(folder):
    """The pid of the shim that lives for the task in `folder`."""
    try:
        with open(os.path.join(folder, "lock"), encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read() or 0) or None
    except FileNotFoundError:
        pass
    return None


def give_up_capabilities(libc):
    """Have none, and get none by running a program, which root would otherwise."""
    capability = 0
    while libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    call(libc.capset, struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24))


class Log:
    """The task's output, rotated; a disk that is full costs output, never the task. `dropped` says, with {bytes}, how
    much of it that was; it comes where the output goes on."""

    def __init__(self, path, limit, dropped):
        self.path, self.limit, self.dropped = path, limit, dropped
        self.lost = 0
        self.sink = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, data):
        written = 0
        try:
            if os.fstat(self.sink).st_size + len(data) > self.limit:
                os.replace(self.path, self.path + ".1")
                os.close(self.sink)
                self.sink = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            if self.tell_lost():
                written = os.write(self.sink, data)
        except OSError:
            pass
        self.lost += len(data) - written

    def tell_lost(self):
        """Whether nothing is lost that the log does not tell of."""
        if self.lost:
            text = "\n" + self.dropped.replace("{bytes}", str(self.lost)) + "\n"
            try:
                os.write(self.sink, text.encode())
            except OSError:
                return False
            self.lost = 0
        return True


def limit(spec, on_cpus):
    """The task's limits, in the child before it becomes the command. RLIMIT_DATA counts private writable memory."""
    if spec.get("memory_bytes"):
        resource.setrlimit(resource.RLIMIT_DATA, (spec["memory_bytes"], spec["memory_bytes"]))
    if on_cpus:
        os.sched_setaffinity(0, on_cpus)


def spawn(spec, on_cpus, token, output):
    """Fork the command; returns its pid and the pipe that tells why it could not be run (empty when it could)."""
    libc = ctypes.CDLL(None, use_errno=True)
    shim = os.getpid()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    # A stop that comes before the command is there ends the child; the shim's own handler in it would swallow it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        os.close(writer)
        return pid, reader
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != shim:
            os._exit(128 + signal.SIGKILL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        limit(spec, on_cpus)
        os.chdir(spec["cwd"])
        environment = {**spec["environment"], "AILAB_TASK": token}
        if spec.get("gpus") is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(spec["gpus"])
        os.execvpe(spec["command"][0], spec["command"], environment)
    except OSError as error:
        os.write(writer, f"{error.strerror}: {error.filename or spec['command'][0]}".encode())
        os._exit(126 if isinstance(error, PermissionError) else 127)
    except ValueError as error:
        os.write(writer, str(error).encode())
        os._exit(126)


def descendants():
    """The living children of this process: the task, and whatever of it lost its parent."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as children:
        return [int(pid) for pid in children.read().split()]


class Shim:
    def __init__(self, folder):
        # From inside: the folder stays the same where it is given another name.
        os.chdir(folder)
        self.folder = folder = "."
        with open(os.path.join(folder, "spec.json"), encoding="utf-8") as source:
            kept = json.load(source)
        self.spec, self.attempt, self.token = kept["spec"], kept["attempt"], kept["token"]
        self.on_cpus, self.dropped, self.network = kept["on_cpus"], kept["dropped"], kept["network"]
        self.stopping = self.kill_at = None
        self.status = None

    def run(self):
        reserve(self.folder)
        self.remove_stale_sockets()
        log = Log(os.path.join(self.folder, "log"), self.spec["log_bytes"], self.dropped)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        wake_reader, wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self.ask_to_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        started = now()
        self.child, why = spawn(self.spec, self.on_cpus, self.token, writer)
        os.close(writer)
        child = {
            "pid": self.child,
            "start_time": start_time(self.child),
            "started_at": started,
            "attempt": self.attempt,
        }
        write(self.folder, "child.json", child)
        reason = os.read(why, 4096).decode(errors="replace")
        os.close(why)
        self.pump(reader, wake_reader, log)
        self.end_leftovers(reader, log)
        end = {"attempt": self.attempt, "started_at": started, "ended_at": now(), "exit_status": self.status}
        end["reason"] = f"cannot-start: {reason}" if reason else "stopped" if self.stopping else None
        os.unlink(os.path.join(self.folder, "reserve"))
        log.tell_lost()
        write(self.folder, "exit.json", end)

    def remove_stale_sockets(self):
        """A unix socket outlives who listened on it, and would keep the next from listening."""
        for port in self.spec["ports"]:
            if isinstance(port, str) and os.path.exists(port):
                os.unlink(port)

    def ask_to_stop(self, *_signal):
        """TERM to the whole task; `grace` later KILL. The stopper may have left another grace in a file."""
        if self.stopping is not None:
            return
        self.stopping = time.monotonic()
        grace = self.spec["grace"]
        try:
            with open(os.path.join(self.folder, "grace"), encoding="ascii") as source:
                grace = float(source.read())
        except (OSError, ValueError):
            pass
        self.kill_at = self.stopping + grace
        self.signal_group(signal.SIGTERM)

    def signal_group(self, number):
        try:
            os.killpg(self.child, number)
        except ProcessLookupError:
            pass

    def reap(self):
        """Collect every process that has ended; note the task's own status."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.child:
                code = os.waitstatus_to_exitcode(status)
                self.status = code if code >= 0 else 128 - code

    def drain(self, reader, log):
        """Move what is there from the pipe to the log; False when the pipe has ended."""
        while True:
            try:
                data = os.read(reader, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            log.write(data)

    def pump(self, reader, wake, log):
        """Until the main process has ended: keep its output, pass a stop on, kill when the grace is over."""
        poller = select.poll()
        poller.register(reader, select.POLLIN)
        poller.register(wake, select.POLLIN)
        while self.status is None:
            timeout = None if self.kill_at is None else max(0.0, (self.kill_at - time.monotonic()) * 1000)
            for descriptor, _event in poller.poll(timeout):
                if descriptor == wake:
                    os.read(wake, 4096)
                elif not self.drain(reader, log):
                    poller.unregister(reader)
            self.reap()
            if self.kill_at is not None and time.monotonic() >= self.kill_at and self.status is None:
                self.signal_group(signal.SIGKILL)
                self.kill_at = time.monotonic() + TICK

    def end_leftovers(self, reader, log):
        """End what the task left behind, in whatever session: TERM, then KILL until none is left."""
        patience = min(self.spec["grace"], 3.0) if self.kill_at is None else max(0.0, self.kill_at - time.monotonic())
        deadline = time.monotonic() + patience
        told = set()
        while True:
            self.reap()
            left = descendants()
            if not left:
                break
            for pid in left:
                number = signal.SIGKILL if time.monotonic() >= deadline else signal.SIGTERM
                if (pid, number) not in told:
                    told.add((pid, number))
                    try:
                        os.kill(pid, number)
                    except ProcessLookupError:
                        pass
            self.drain(reader, log)
            select.select([], [], [], 0.02)
        self.drain(reader, log)


def try_network():
    try:
        enter_network(None)
    except OSError as error:
        sys.exit(error.strerror)


def main():
    if sys.argv[1] == "--try-network":
        return try_network()
    folder = sys.argv[1]
    lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for pause in (0.001, 0.01, 0.1, 0.4, 1, None):  # whoever looks whether a shim lives holds it for a moment
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if pause is None:
                return  # another shim has this task
            time.sleep(pause)
    os.truncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    shim = Shim(folder)
    if shim.network is not None:
        try:
            enter_network(shim.network["gang"])
        except OSError as error:
            # The last line that it writes says why there is no task.
            sys.exit(f"no private network: {error.strerror or error} (ailab doctor)")
    shim.run()


if __name__ == "__main__":
    main()
