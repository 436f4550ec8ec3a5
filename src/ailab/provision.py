"""What a lab needs on the machine before it can start: the environment in use, and the tools beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from ailab import preflight
from ailab.errors import NotFound, UsageError
from ailab.i18n import _
from ailab.lab import Lab
from ailab.paths import account_name
from ailab.settings_file import SettingsError, refusal_at

if TYPE_CHECKING:
    from ailab.access.tools import Tools
    from ailab.environments.generations import Generation
    from ailab.environments.interpreters import Interpreter
    from ailab.environments.lock import Lock
    from ailab.environments.uv import Uv
    from ailab.stacks import Stack

Step = Callable[[str], AbstractContextManager[Callable[[str], None]]]


def lab_stack(lab: Lab) -> Stack:
    """The stack that lab.toml names. Raises `SettingsError` with its line for one that there is not, or with that of
    the stack's own file."""
    return _stack_called(lab, lab.settings.environment.stack)


def stack_of(lab: Lab, generation: Generation) -> Stack:
    """The stack that a generation was built from. Raises as `lab_stack` does."""
    return _stack_called(lab, generation.stack)


def _stack_called(lab: Lab, name: str) -> Stack:
    from ailab.stacks import load_stack

    try:
        return load_stack(name, lab.settings.stacks)
    except SettingsError as error:
        # A file that cannot be read at all has no line of its own: the one that names it has.
        raise error if error.line else refusal_at(lab.paths.settings, ("stacks",), error) from None
    except UsageError as error:
        raise refusal_at(lab.paths.settings, ("environment", "stack"), error) from None


def wish_of(lab: Lab) -> str:
    """The digest of the environment that lab.toml asks for."""
    from ailab.environments.lock import inputs_of

    section = lab.settings.environment
    gpu = "" if section.gpu == "auto" else f"/{section.gpu}"
    return f"{inputs_of(lab_stack(lab), section.packages)}/{section.python}{gpu}"


def ensure_lock(lab: Lab) -> tuple[Lock, bool]:
    """lab.lock for what lab.toml asks, and whether it had to be written."""
    from ailab.environments import interpreters, lock

    section = lab.settings.environment
    stack, uv = lab_stack(lab), uv_of(lab)
    # One that fits needs no interpreter, which would have to be looked for.
    known = lock.read_lock(lab.paths.lock)
    if known is not None and known.inputs == lock.inputs_of(stack, section.packages):
        return known, False
    interpreter = interpreters.find(stack, section.python, uv)
    return lock.ensure_lock(lab.paths.lock, stack, section.packages, uv, interpreter.program)


def ensure_environment(
    lab: Lab, step: Step, tell: Callable[[str], None], *, by_hand: bool = False, again: bool = False
) -> Generation:
    """The generation that lab.toml asks for, built if need be, and in use.

    One that a person has switched to by hand stays, until lab.toml changes or they build `by_hand`.
    """
    from ailab.environments import lock
    from ailab.environments.labs import Labs

    if lab.machine.image.exists():
        return preflight.ensure_gpu(lab, _of_image(lab), lab_stack(lab), tell, new=False)
    if not again and (given := given_environment(lab)) is not None:
        return given
    stack, wish = lab_stack(lab), wish_of(lab)
    with_cuda = preflight.wants_cuda(lab, stack, tell)
    current = lab.generations.current()
    if current is not None:
        Labs(lab.machine).register(lab.paths.root, current.id)
    if current is not None and not again and _is_wished(lab, current, stack, with_cuda=with_cuda):
        return preflight.ensure_gpu(lab, current, stack, tell, new=False)
    if current is not None and not by_hand and lab.generations.chosen_against(wish):
        tell(
            _("Staying with {id}, which you switched to. To what lab.toml asks: ailab env build").format(id=current.id)
        )
        return preflight.ensure_gpu(lab, current, stack, tell, new=False)
    interpreter = find_python(lab, step)
    with step(_("Locking the environment")) as far:
        known, written = lock.ensure_lock(
            lab.paths.lock, stack, lab.settings.environment.packages, uv_of(lab), interpreter.program, far
        )
        far(_("written") if written else _("unchanged"))
    built = build(lab, known, interpreter, step, tell, with_cuda=with_cuda, again=again)
    return lab.generations.use(built.id, who=account_name(), why="lab.toml", wish=wish)


def given_environment(lab: Lab) -> Generation | None:
    """The environment in the image that the lab was made from, while it is in use and lab.toml asks for it; it is not
    on this machine. None for every other lab."""
    from ailab.environments import lock

    current, known = lab.generations.current(), lock.read_lock(lab.paths.lock)
    if current is None or known is None or Path(current.folder) != lab.paths.given.resolve():
        return None
    wished = known.inputs == lock.inputs_of(lab_stack(lab), lab.settings.environment.packages)
    return current if wished and current.lock in (known.digest(), known.with_cuda().digest()) else None


def _of_image(lab: Lab) -> Generation:
    """The environment of the image that the lab runs in, which is what it is."""
    generation = lab.generations.current()
    assert generation is not None, "a container's start has linked it"
    return generation


def uv_of(lab: Lab) -> Uv:
    from ailab.environments.uv import Uv

    return Uv(lab.machine, lab.settings.mirrors)


def find_python(lab: Lab, step: Step) -> Interpreter:
    from ailab.environments import interpreters

    with step(_("Looking for a Python")) as far:
        interpreter = interpreters.find(lab_stack(lab), lab.settings.environment.python, uv_of(lab))
        far(interpreter.version)
    return interpreter


def build(
    lab: Lab,
    locked: Lock,
    interpreter: Interpreter,
    step: Step,
    tell: Callable[[str], None],
    *,
    with_cuda: bool,
    again: bool = False,
) -> Generation:
    """The generation of `locked`, built if need be; not yet in use. One `with_cuda` has been tried on the GPU."""
    stack = lab_stack(lab)
    title = _("Building {stack} with its CUDA libraries") if with_cuda else _("Building {stack}")
    with step(title.format(stack=stack.title)) as far:
        applying = locked.with_cuda() if with_cuda else locked
        built, _new = lab.generations.build(stack, applying, interpreter, uv_of(lab), far, again=again)
    if with_cuda:
        said: list[str] = []
        with step(_("Trying the GPU")):
            preflight.ensure_gpu(lab, built, stack, said.append, new=True)
        for text in said:
            tell(text)
    return built


def exported(lab: Lab, format: str) -> str:
    """lab.lock as "requirements" or "pylock". Raises `NotFound` where there is no lock yet."""
    from ailab.environments import exporting, lock

    known = lock.read_lock(lab.paths.lock)
    if known is None:
        raise NotFound(_("There is no lab.lock yet."), remedy=_("Write it: ailab env lock"))
    stack = lab_stack(lab)
    return exporting.pylock(known, stack, uv_of(lab)) if format == "pylock" else exporting.requirements(known, stack)


def _is_wished(lab: Lab, current: Generation, stack: Stack, *, with_cuda: bool) -> bool:
    """Whether the generation in use is what lab.toml and lab.lock ask for, on this machine."""
    from ailab.environments import interpreters, lock

    section = lab.settings.environment
    known = lock.read_lock(lab.paths.lock)
    return (
        known is not None
        and known.inputs == lock.inputs_of(stack, section.packages)
        and current.lock == (known.with_cuda() if with_cuda else known).digest()
        and interpreters.is_wanted(section.python, current.python, current.interpreter, lab.machine.pythons)
    )


def ensure_tools(lab: Lab, step: Step) -> Tools:
    """The proxy and TensorBoard, installed if need be."""
    from ailab.access import tools

    if not tools.missing(lab.machine):
        return tools.find(lab.machine)
    uv = uv_of(lab)
    with step(_("Installing the proxy and TensorBoard")):
        return tools.install(lab.machine, uv, uv.environment())


def checkout() -> Path:
    """The folder with the launcher and its requirements: noted beside the control environment, or the checkout."""
    noted = Path(sys.prefix, "share", "ailab")
    return noted if noted.is_dir() else Path(__file__).parent.parent.parent


def own_stack_files(lab: Lab) -> list[str]:
    """The files of the lab's own stacks, relative to its folder. Raises `UsageError` where one is elsewhere: lab.toml's
    path to it would lead nowhere on another machine."""
    from ailab.stacks import read_own

    names = []
    root = lab.paths.root.resolve()
    for stack in read_own(lab.settings.stacks).values():
        for file in (path.resolve() for path in stack.own_files):
            if not file.is_relative_to(root):
                raise UsageError(
                    _("{file}, which the stack {stack} needs, is not in the lab's folder.").format(
                        file=file, stack=stack.name
                    ),
                    remedy=_("Copy it there, and correct stacks in lab.toml."),
                )
            names.append(str(file.relative_to(root)))
    return list(dict.fromkeys(names))
