"""What a lab needs on the machine before it can start: the environment in use, and the tools beside it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ailab.i18n import _
from ailab.lab import Lab

if TYPE_CHECKING:
    from ailab.access.tools import Tools
    from ailab.environments.generations import Generation
    from ailab.environments.lock import Lock

Step = Callable[[str], AbstractContextManager[Callable[[str], None]]]


def ensure_lock(lab: Lab) -> tuple[Lock, bool]:
    """lab.lock for what lab.toml asks, and whether it had to be written."""
    from ailab.environments import interpreters, lock
    from ailab.environments.uv import Uv
    from ailab.stacks import load_stack

    section = lab.settings.environment
    stack, uv = load_stack(section.stack), Uv(lab.machine, lab.settings.mirrors)
    interpreter = interpreters.find(stack, section.python, uv)
    return lock.ensure_lock(lab.paths.lock, stack, section.packages, uv, interpreter.program)


def ensure_environment(lab: Lab, step: Step) -> Generation:
    """The generation that lab.toml asks for, built if need be, and in use."""
    from ailab.environments import interpreters, lock
    from ailab.environments.uv import Uv
    from ailab.stacks import load_stack

    section = lab.settings.environment
    stack, uv = load_stack(section.stack), Uv(lab.machine, lab.settings.mirrors)
    current = lab.generations.current()
    known = lock.read_lock(lab.paths.lock)
    if (
        current is not None
        and known is not None
        and known.inputs == lock.inputs_of(stack, section.packages)
        and current.lock == known.digest()
        and current.python.startswith(section.python)
    ):
        return current
    with step(_("Looking for a Python")) as tell:
        interpreter = interpreters.find(stack, section.python, uv)
        tell(interpreter.version)
    with step(_("Locking the environment")) as tell:
        known, written = lock.ensure_lock(lab.paths.lock, stack, section.packages, uv, interpreter.program)
        tell(_("written") if written else _("unchanged"))
    with step(_("Building {stack}").format(stack=stack.title)) as tell:
        built, _new = lab.generations.build(stack, known, interpreter, uv, tell)
    return lab.generations.use(built.id, who="up", why="lab.toml")


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
