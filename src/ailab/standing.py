"""Standing alone in a container: what an image's build seals, and what a container sets up before the lab starts."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from ailab import files
from ailab.errors import Conflict, UsageError
from ailab.i18n import _
from ailab.lab import Lab
from ailab.paths import IMAGE_HOME, IMAGE_LAB, SETTINGS_NAME, SHARED_FOLDERS, LabPaths, MachinePaths, private_folder
from ailab.settings_file import load_settings

_MACHINE = MachinePaths(IMAGE_HOME)
_BAKED = IMAGE_HOME / "lab"
# nss_extrausers does not look for accounts below it.
_LOWEST_ACCOUNT = 500
_CACHE = IMAGE_LAB / ".cache"


def seal(python: Path) -> str:
    """The last step of an image's build: make what was installed a generation, and note that this is an image.

    `python` is the interpreter that the environment was built on. Returns the generation's id.
    """
    from ailab import provision
    from ailab.environments import bytecode, interpreters, lock
    from ailab.environments.generations import Generations
    from ailab.images.dockerfile import ENVIRONMENT

    lab = Lab(LabPaths(_BAKED), _MACHINE, load_settings(_BAKED / SETTINGS_NAME))
    locked = lock.read_lock(lab.paths.lock)
    interpreter = interpreters.examine(python)
    assert locked is not None and interpreter is not None, "the build has copied the one and run the other"
    with_cuda = lab.settings.environment.gpu != "off"
    applying = locked.with_cuda() if with_cuda else locked
    _CACHE.mkdir(exist_ok=True)
    _CACHE.chmod(0o1777)
    stack = provision.lab_stack(lab)
    made = Generations(_MACHINE, lab.paths).adopt(ENVIRONMENT, stack, applying, interpreter, cache=_CACHE / "cuda")
    bytecode.note_compiled(ENVIRONMENT)
    files.replace(_MACHINE.image, json.dumps({"generation": made.id, "lock": made.lock}))
    return made.id


def settle() -> Path:
    """Make /lab the lab of the image that we run in: its settings and lock, folders, the account's name. Returns it.

    Done again at each start: another image brings its own lab.lock. Raises `Conflict` where something is mounted that
    hides what the image brings, or may not be written.
    """
    root, image = IMAGE_LAB, files.read_json(_MACHINE.image)
    assert image is not None, "only within an image"
    _refuse_root()
    for folder in (root, *(root / name for name in SHARED_FOLDERS)):
        _refuse_unwritable(folder)
    paths = LabPaths(root)
    _refuse_hidden(paths)
    private_folder(paths.state)
    private_folder(paths.state / "home")
    name_account(paths.state / "users", "ailab", paths.state / "home")
    mounted = _mounts()
    for source in sorted(path for path in _BAKED.rglob("*") if path.is_file()):
        target = root / source.relative_to(_BAKED)
        if target not in mounted:
            target.parent.mkdir(parents=True, exist_ok=True)
            files.replace(target, source.read_text(encoding="utf-8"))
    files.replace(_noted(paths), json.dumps(image | {"files": _digests()}))
    private_folder(paths.environment)
    files.replace_link(paths.current, _MACHINE.generations / image["generation"])
    _seed_notebooks(root)
    return root


def _refuse_root() -> None:
    if os.geteuid() == 0:
        raise UsageError(
            _("The lab does not run as root, in a container either."),
            remedy=_("Leave --user away, or name an ordinary account: --user $(id -u):$(id -g)"),
        )


def _refuse_unwritable(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
        probe = folder / f".ailab-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        seen = folder.stat() if folder.exists() else None
        owner = f"{seen.st_uid}:{seen.st_gid}" if seen is not None else "?"
        raise Conflict(
            _(
                "{folder} belongs to {owner}, and the container, running as {uid}:{gid}, cannot write to it: {reason}."
            ).format(folder=folder, uid=os.geteuid(), gid=os.getegid(), reason=error.strerror, owner=owner),
            remedy=_(
                "Run the container as its owner (--user {owner}), or mount a folder that {uid} may write to."
            ).format(owner=owner, uid=os.geteuid()),
        ) from None


def _noted(paths: LabPaths) -> Path:
    """What we put into the lab at the last start: digests by name."""
    return paths.state / "image.json"


def _digests() -> dict[str, str]:
    from ailab.environments.installed import digest_of

    return {str(path.relative_to(_BAKED)): digest_of(path) for path in _BAKED.rglob("*") if path.is_file()}


def _refuse_hidden(paths: LabPaths) -> None:
    """A folder mounted at the lab's own place that is another lab: its files would be replaced by the image's."""
    from ailab.environments.installed import digest_of

    mounted = _mounts()
    hidden = [place for place in mounted if place == paths.lock or place.is_relative_to(IMAGE_HOME)]
    if hidden:
        raise Conflict(
            _("{path} is mounted, and hides what the image keeps there.").format(path=hidden[0]),
            remedy=_("Mount other folders: notebooks, models, logs, data sets."),
        )
    if not paths.settings.exists() or paths.settings in mounted:
        return
    ours = {digest_of(_BAKED / SETTINGS_NAME)}
    noted = (files.read_json(_noted(paths)) or {}).get("files", {})
    ours.add(noted.get(SETTINGS_NAME, ""))
    if digest_of(paths.settings) not in ours:
        raise Conflict(
            _("{path} is a lab of its own, mounted where the image has its lab.").format(path=paths.root),
            remedy=_("Mount its folders alone: -v DIR/notebooks:{root}/notebooks").format(root=paths.root),
        )


def _mounts() -> set[Path]:
    """Where something is mounted (proc(5), mountinfo, field 5, with its octal escapes)."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return {Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line.split()[4])) for line in lines}


def name_account(folder: Path, name: str, home: Path) -> None:
    """Give this account a name in a container, for programs that ask: nss_extrausers reads these files there. `home` is
    where the container has it."""
    uid, gid = os.geteuid(), os.getegid()
    folder.mkdir(exist_ok=True)
    named = {"passwd": f"{name}:x:{uid}:{gid}::{home}:/bin/bash\n", "group": f"{name}:x:{gid}:\n"}
    for file, text in named.items():
        if (uid if file == "passwd" else gid) >= _LOWEST_ACCOUNT:
            files.replace(folder / file, text)


def _seed_notebooks(root: Path) -> None:
    """What a new lab has in its notebooks, where there are none."""
    from ailab.notebooks import seed

    settings = load_settings(root / SETTINGS_NAME)
    if not any((root / "notebooks").iterdir()):
        seed(root / "notebooks", settings.environment.stack, settings.lab.language)
