"""Checks that data from outside has in common, and what is said to people of a value that fails one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from ailab.i18n import _


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a text has no NUL characters")
    return text


# What becomes a part of a command, a path or a variable: the system's calls end a text at a NUL.
PlainText = Annotated[str, AfterValidator(_without_nul)]
# A number that SQLite can hold.
RowId = Annotated[int, Field(ge=0, lt=2**63)]


def complaint(error: Mapping[str, Any]) -> str:
    """The first of pydantic's errors with its place: `body.wish.cpus: A whole number is expected.`"""
    place = ".".join(str(part) for part in error["loc"])
    return f"{place}: {_problem(error)}"


def _problem(error: Mapping[str, Any]) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return _("It is missing.")
        case "extra_forbidden":
            return _("There is no such key.")
        case "json_invalid":
            return _("This is not JSON: {reason}.").format(reason=context.get("error", "?"))
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            return _("A whole number is expected.")
        case "float_parsing" | "float_type" | "finite_number":
            return _("A number is expected.")
        case "bool_parsing" | "bool_type":
            return _("true or false is expected.")
        case "string_type" | "string_unicode":
            return _("A text is expected.")
        case "list_type":
            return _("A list is expected.")
        case "dict_type" | "model_attributes_type" | "model_type":
            return _("An object is expected.")
        case "greater_than_equal" | "greater_than" as kind:
            return _("It is at least {least}.").format(least=context["ge" if kind == "greater_than_equal" else "gt"])
        case "less_than_equal":
            return _("It is at most {most}.").format(most=context["le"])
        case "string_too_long" | "too_long":
            return _("It is longer than {most}.").format(most=context["max_length"])
        case "string_pattern_mismatch":
            return _("It has characters that are not allowed here.")
        case "value_error":
            return str(context["error"])
        case _:
            return str(error["msg"])
