"""What a lab needs on the machine before it can start: the environment in use, and the tools beside it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ailab.errors import NotFound, UsageError
from ailab.i18n import _
from ailab.lab import Lab
from ailab.paths import account_name
from ailab.settings_file import refusal_at

if TYPE_CHECKING:
    from ailab.access.tools import Tools
    from ailab.environments.generations import Generation
    from ailab.environments.interpreters import Interpreter
    from ailab.environments.lock import Lock
    from ailab.environments.uv import Uv
    from ailab.stacks import Stack

Step = Callable[[str], AbstractContextManager[Callable[[str], None]]]


def lab_stack(lab: Lab) -> Stack:
    """The stack that lab.toml names. Raises `SettingsError` with its line for one that there is not."""
    from ailab.stacks import load_stack

    try:
        return load_stack(lab.settings.environment.stack)
    except UsageError as error:
        raise refusal_at(lab.paths.settings, ("environment", "stack"), error) from None


def wish_of(lab: Lab) -> str:
    """The digest of the environment that lab.toml asks for."""
    from ailab.environments.lock import inputs_of

    section = lab.settings.environment
    return f"{inputs_of(lab_stack(lab), section.packages)}/{section.python}"


def ensure_lock(lab: Lab) -> tuple[Lock, bool]:
    """lab.lock for what lab.toml asks, and whether it had to be written."""
    from ailab.environments import interpreters, lock
    from ailab.environments.uv import Uv

    section = lab.settings.environment
    stack, uv = lab_stack(lab), Uv(lab.machine, lab.settings.mirrors)
    interpreter = interpreters.find(stack, section.python, uv)
    return lock.ensure_lock(lab.paths.lock, stack, section.packages, uv, interpreter.program)


def ensure_environment(
    lab: Lab, step: Step, tell: Callable[[str], None], *, by_hand: bool = False, again: bool = False
) -> Generation:
    """The generation that lab.toml asks for, built if need be, and in use.

    One that a person has switched to by hand stays, until lab.toml changes or they build `by_hand`.
    """
    from ailab.environments import lock

    stack, wish = lab_stack(lab), wish_of(lab)
    current = lab.generations.current()
    if current is not None and not again and _is_wished(lab, current, stack):
        return current
    if current is not None and not by_hand and lab.generations.chosen_against(wish):
        tell(
            _("Staying with {id}, which you switched to. To what lab.toml asks: ailab env build").format(id=current.id)
        )
        return current
    interpreter = find_python(lab, step)
    with step(_("Locking the environment")) as far:
        known, written = lock.ensure_lock(
            lab.paths.lock, stack, lab.settings.environment.packages, uv_of(lab), interpreter.program, far
        )
        far(_("written") if written else _("unchanged"))
    built = build(lab, known, interpreter, step, again=again)
    return lab.generations.use(built.id, who=account_name(), why="lab.toml", wish=wish)


def uv_of(lab: Lab) -> Uv:
    from ailab.environments.uv import Uv

    return Uv(lab.machine, lab.settings.mirrors)


def find_python(lab: Lab, step: Step) -> Interpreter:
    from ailab.environments import interpreters

    with step(_("Looking for a Python")) as far:
        interpreter = interpreters.find(lab_stack(lab), lab.settings.environment.python, uv_of(lab))
        far(interpreter.version)
    return interpreter


def build(lab: Lab, locked: Lock, interpreter: Interpreter, step: Step, *, again: bool = False) -> Generation:
    """The generation of `locked`, built if need be; not yet in use."""
    stack = lab_stack(lab)
    with step(_("Building {stack}").format(stack=stack.title)) as far:
        return lab.generations.build(stack, locked, interpreter, uv_of(lab), far, again=again)[0]


def exported(lab: Lab, format: str) -> str:
    """lab.lock as "requirements" or "pylock". Raises `NotFound` where there is no lock yet."""
    from ailab.environments import exporting, lock

    known = lock.read_lock(lab.paths.lock)
    if known is None:
        raise NotFound(_("There is no lab.lock yet."), remedy=_("Write it: ailab env lock"))
    stack = lab_stack(lab)
    return exporting.pylock(known, stack, uv_of(lab)) if format == "pylock" else exporting.requirements(known, stack)


def _is_wished(lab: Lab, current: Generation, stack: Stack) -> bool:
    """Whether the generation in use is what lab.toml and lab.lock ask for."""
    from ailab.environments import interpreters, lock

    section = lab.settings.environment
    known = lock.read_lock(lab.paths.lock)
    return (
        known is not None
        and known.inputs == lock.inputs_of(stack, section.packages)
        and current.lock == known.digest()
        and interpreters.is_wanted(section.python, current.python, current.interpreter, lab.machine.pythons)
    )


def ensure_tools(lab: Lab, step: Step) -> Tools:
    """The proxy and TensorBoard, installed if need be."""
    from ailab.access import tools
    from ailab.environments.uv import Uv, network_environment

    uv = Uv(lab.machine, lab.settings.mirrors)
    missing = tools.missing(lab.machine)
    if not missing:
        return tools.find(lab.machine)
    with step(_("Installing the proxy and TensorBoard")):
        return tools.install(
            lab.machine,
            uv.run,
            uv.environment() | network_environment(lab.settings.mirrors, uv.environment()),
            lab.settings.mirrors.npm,
        )
