"""Where everything is: on the machine, in the lab, and how a lab is found."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ailab import root_folders
from ailab.errors import Conflict, NotFound, UsageError
from ailab.i18n import _

SETTINGS_NAME = "lab.toml"
# AILAB_HOME where it is not set: for root, and for others in their home.
ROOTS_HOME = Path("/var/lib/ailab")
USERS_HOME = ".local/share/ailab"
# In an image: AILAB_HOME, which nothing writes to, and the lab.
IMAGE_HOME = Path("/opt/ailab")
IMAGE_LAB = Path("/lab")
# The folders of a lab that everybody in it works with.
SHARED_FOLDERS = ("notebooks", "models", "logs")
# In a job's own folder: its progress, its Keras fits, and which run of MLflow it is.
JOB_PROGRESS = "progress.jsonl"
JOB_TRAINING = "training.jsonl"
JOB_RUN = "run.json"
# There once what the job has left was removed: when and why.
JOB_REMOVED = "removed.json"
# A unix socket's path holds 107 bytes; the longest of ours are, in the run folder, kernels/kernel-<uuid>-ipc-5 and
# workspaces/<name>/jupyter.sock.
_LONGEST_RUN_FOLDER = 45
_LONGEST_NAME = 32
# URLs of sockets (http+unix://) pass through parsers that lower the case of a host.
_SAFE_RUN_FOLDER = re.compile(r"[a-z0-9/._-]+")
_SAFE_NAME = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{_LONGEST_NAME - 1}}}")
# A folder that others of our group may enter; what is made in it belongs to the group.
GROUP_FOLDER = 0o2750


@dataclass(frozen=True)
class MachinePaths:
    """What ailab keeps on a machine, shared by its labs: all below `home` (`AILAB_HOME`)."""

    home: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> MachinePaths:
        """`AILAB_HOME`, else /var/lib/ailab for root, else the account's data folder (XDG base directories)."""
        if environ.get("AILAB_HOME"):
            return cls(Path(environ["AILAB_HOME"]).absolute())
        if os.geteuid() == 0:
            return cls(ROOTS_HOME)
        if environ.get("XDG_DATA_HOME"):
            return cls(Path(environ["XDG_DATA_HOME"]) / "ailab")
        return cls(Path(environ.get("HOME", "~")).expanduser() / USERS_HOME)

    @property
    def control(self) -> Path:
        return self.home / "control"

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    @property
    def work(self) -> Path:
        """Where uv resolves: a folder for each time."""
        return self.cache / "work"

    @property
    def pythons(self) -> Path:
        return self.home / "pythons"

    @property
    def generations(self) -> Path:
        return self.home / "generations"

    @property
    def labs(self) -> Path:
        """A file for each lab that uses a generation."""
        return self.home / "labs"

    @property
    def wheels(self) -> Path:
        """The wheels that a bundle has brought; there only on a machine that was set up by one."""
        return self.home / "wheels"

    @property
    def tools(self) -> Path:
        return self.home / "tools"

    @property
    def locks(self) -> Path:
        """The locks of what labs share: who can open one can hold it, so only the account may enter the folder."""
        return self.home / "locks"

    @property
    def account_home(self) -> Path:
        """The home of a system account that root has made."""
        return self.home / "home"

    @property
    def image(self) -> Path:
        """Says that this is the inside of an image, and of which: nothing in it is built or changed."""
        return self.home / "image.json"

    @property
    def account_folders(self) -> tuple[Path, ...]:
        """What the lab's account writes, with `private_folders`; the rest belongs to the launcher."""
        return (self.pythons, self.generations, self.labs, self.wheels, self.tools)

    @property
    def private_folders(self) -> tuple[Path, ...]:
        """Those that only the account may enter. In uv's cache each package has a lock that everybody may write."""
        return (self.cache, self.locks)


@dataclass(frozen=True)
class LabPaths:
    """The files of one lab: all below `root`, but for sockets whose path would be too long there."""

    root: Path

    @property
    def settings(self) -> Path:
        return self.root / SETTINGS_NAME

    @property
    def lock(self) -> Path:
        return self.root / "lab.lock"

    @property
    def logs(self) -> Path:
        """TensorBoard's log folder."""
        return self.root / "logs"

    @property
    def state(self) -> Path:
        return self.root / ".ailab"

    @property
    def database(self) -> Path:
        return self.state / "lab.db"

    @property
    def daemon_log(self) -> Path:
        return self.state / "daemon.log"

    @property
    def stop_mark(self) -> Path:
        """An empty file whose time is that of the last `ailab down`."""
        return self.state / "down"

    @property
    def place(self) -> Path:
        """Where the lab was when its daemon last started: see `ailab.place`."""
        return self.state / "place.json"

    @property
    def tasks(self) -> Path:
        return self.state / "tasks"

    @property
    def secrets(self) -> Path:
        return self.state / "secrets"

    @property
    def jobs(self) -> Path:
        """What jobs leave, a folder a job: checkpoints, progress."""
        return self.state / "jobs"

    @property
    def hub(self) -> Path:
        return self.state / "hub"

    @property
    def hub_database(self) -> Path:
        return self.hub / "hub.sqlite"

    @property
    def environment(self) -> Path:
        """Holds `current`, the link to the generation in use, and the history of switches."""
        return self.state / "environment"

    @property
    def current(self) -> Path:
        return self.environment / "current"

    @property
    def given(self) -> Path:
        """What an image that the lab was made from says of its environment, which is nowhere on this machine."""
        return self.environment / "image"

    @property
    def pending_change(self) -> Path:
        """The journal of a change of lab.toml, lab.lock and `current`; there only while one is under way."""
        return self.environment / "change.json"

    @property
    def pushed(self) -> Path:
        """A line for each image that was pushed from this lab."""
        return self.state / "pushed.jsonl"

    @property
    def snapshots(self) -> Path:
        """The code that jobs ran."""
        return self.state / "snapshots"

    @property
    def mlflow(self) -> Path:
        """MLflow's database and artifacts."""
        return self.state / "mlflow"

    @property
    def mlflow_runs(self) -> Path:
        """How far each run has been written into MLflow, a file a run."""
        return self.mlflow / "runs"

    @property
    def trainings(self) -> Path:
        """What trainings in notebooks report, a file a training."""
        return self.state / "trainings"

    @property
    def run(self) -> Path:
        """The 0700 folder of sockets and pid files, which who needs it makes."""
        inside = self.state / "run"
        if len(str(inside)) <= _LONGEST_RUN_FOLDER and _SAFE_RUN_FOLDER.fullmatch(str(inside)):
            return inside
        digest = hashlib.sha256(str(self.root).encode()).hexdigest()[:8]
        return Path("/tmp") / f"ailab-{os.geteuid()}-{digest}"  # noqa: S108  checked by private_folder

    @property
    def hub_socket(self) -> Path:
        """In a folder of the sockets that ask for a login: a container can be given it without the others."""
        return self.run / "hub" / "hub.sock"

    @property
    def portal_socket(self) -> Path:
        """Beside the hub's: it asks for the same login, and a container may knock at it, too."""
        return self.hub_socket.with_name("portal.sock")

    @property
    def mlflow_socket(self) -> Path:
        """In a folder for what tasks may reach of MLflow."""
        return self.run / "mlflow" / "mlflow.sock"

    @property
    def mlflow_bell(self) -> Path:
        """A connection to it has MLflow started, where it does not run yet; the answer is whether it will."""
        return self.run / "mlflow" / "bell.sock"

    def workspace_socket(self, user: str) -> Path:
        """Where `user`'s Jupyter server listens, in a folder of its own. A name that a URL or a socket's path cannot
        carry as it is gives a digest instead."""
        digest = hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()[: _LONGEST_NAME - 1]
        name = user if _SAFE_NAME.fullmatch(user) else f"_{digest}"
        return self.run / "workspaces" / name / "jupyter.sock"

    @property
    def workspaces(self) -> Path:
        """What a person's container keeps for itself, a folder a person; there only where workspaces are containers."""
        return self.state / "workspaces"

    @property
    def daemon_socket(self) -> Path:
        return self.run / "daemon.sock"

    @property
    def private_folders(self) -> tuple[Path, ...]:
        """What only the lab's account may enter; besides `run`, which is there while the lab runs."""
        return (self.state, self.tasks, self.secrets, self.hub, self.environment)


def system_account(environ: Mapping[str, str]) -> str:
    """Return the name of the system account of a lab that root starts: `AILAB_ACCOUNT`, else `ailab`."""
    return environ.get("AILAB_ACCOUNT") or "ailab"


def account_name() -> str:
    """The name of the account that this process runs as; its number where it has no name, as in many a container."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def person() -> str:
    """The name of who types: whom sudo was called by, else the account; `admin` where that will not do as a user."""
    name = os.environ.get("SUDO_USER") or account_name()
    plain = name.isascii() and name[:1].isalpha() and name == name.lower() and name.replace("-", "").isalnum()
    return name if plain and name not in ("root", system_account(os.environ)) and len(name) <= 32 else "admin"


def private_folder(path: Path, mode: int = 0o700) -> Path:
    """Make `path` as a folder that only we can enter (with `GROUP_FOLDER`, our group too), or refuse one that is
    another's."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    seen = path.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid():
        raise Conflict(
            _("{path} belongs to another account.").format(path=path),
            remedy=_("Remove it, or run as the account that owns it."),
        )
    if stat.S_IMODE(seen.st_mode) != mode:
        path.chmod(mode)
    return path


def closed_folder(path: Path) -> Path:
    """Make `path` as a folder that only we can enter; one that is a link, as to a larger disk, is closed where it leads
    to, and another's is left as it is."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    seen = path.stat()
    if seen.st_uid == os.geteuid() and stat.S_IMODE(seen.st_mode) != 0o700:
        path.chmod(0o700)
    return path


def find_lab(start: Path) -> Path | None:
    """The lab that `start` is in: the nearest folder upwards with a lab.toml, as git finds a repository."""
    for folder in (start, *start.parents):
        if (folder / SETTINGS_NAME).is_file():
            return folder
    return None


def default_lab(environ: Mapping[str, str]) -> Path:
    """Where `up` makes a lab when there is none: `AILAB_DEFAULT_LAB`, else /srv/ailab for root, else ~/ailab."""
    if environ.get("AILAB_DEFAULT_LAB"):
        return Path(environ["AILAB_DEFAULT_LAB"]).absolute()
    if os.geteuid() == 0:
        return Path("/srv/ailab")
    return Path(environ.get("HOME") or "~").expanduser() / "ailab"


def locate_lab(named: Path | None, start: Path, environ: Mapping[str, str]) -> Path:
    """The lab that a command means: `--lab`, else the one around `start`, else the default one if it exists."""
    if named is not None:
        if not (named / SETTINGS_NAME).is_file():
            raise UsageError(
                _("There is no lab in {path}: it has no lab.toml.").format(path=named),
                remedy=_("Make one: ailab init {path}").format(path=named),
            )
        return real_path(named)
    found = find_lab(start) or find_lab(default_lab(environ))
    if found is None:
        raise NotFound(
            _("There is no lab here: no lab.toml in {path} or above it.").format(path=start),
            remedy=_("Make one and start it: ailab up; or name one: --lab DIR"),
        )
    return real_path(found)


def real_path(path: Path) -> Path:
    """`path` with all links followed; for root only those that are root's own."""
    return root_folders.real_path(path) if os.geteuid() == 0 else path.resolve()
