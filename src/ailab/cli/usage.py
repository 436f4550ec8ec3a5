"""What the command line's parser refuses, in our words: the cause, and the command to type next."""

from __future__ import annotations

import re

from typer.exceptions import TyperException

from ailab.errors import UsageError
from ailab.i18n import _

_HELP = "Usage: "
_NO_COMMAND = re.compile(r"No such command '(.+?)'")
_BAD_VALUE = re.compile(r"Invalid value for '?(.+?)'?: (.+)")


def usage_error(error: TyperException) -> UsageError | None:
    """The refusal as an error of ours; None where nothing was asked for, and the help has been shown instead."""
    said = error.format_message()
    if said.startswith(_HELP):
        print(said)
        return None
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "ailab"
    return UsageError(_sentence(error, said), remedy=_("See how it is used: {command} --help").format(command=path))


def _sentence(error: TyperException, said: str) -> str:
    option = getattr(error, "option_name", None)
    near = getattr(error, "possibilities", None)
    if command := _NO_COMMAND.match(said):
        return _("There is no command {name}.").format(name=command[1])
    if near:
        return _("There is no option {name}. Did you mean {near}?").format(name=option, near=" or ".join(near))
    if option and said.startswith("No such option"):
        return _("There is no option {name}.").format(name=option)
    if said.startswith("Missing "):
        return _("Something is missing: {what}").format(what=said.removeprefix("Missing "))
    if value := _BAD_VALUE.match(said):
        return _("{option} cannot be that: {why}").format(option=value[1], why=value[2])
    return said
