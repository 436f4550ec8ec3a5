"""Reading and writing lab.toml, and reading what it names: every complaint has a file, a line, a key and a remedy."""

from __future__ import annotations

import contextlib
import difflib
import re
import stat
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from ailab import files
from ailab.errors import UsageError
from ailab.i18n import _
from ailab.settings import GIB, Settings

# The mode of a lab.toml that has credentials.
PRIVATE = 0o600
Model = TypeVar("Model", bound=BaseModel)
_SIZES = ("memory", "shm", "keep_size")
_BEFORE_MOUNTS = "access"
_LARGEST_FILE = 1024 * 1024
_TABLE = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_\"'. -]+?)\s*\]")
# In an address: https://user:password@host and https://token@host (of ssh, the name alone is no secret); ?token=...
_CREDENTIALS = re.compile(
    r"(?i)\b(?!\w*\+?ssh:)[a-z][a-z0-9+.-]*://[^\s/@\"']+@|[?&][\w-]*(token|secret|password|key)=[^\s&\"']"
)
_KEY = re.compile(r"\s*[\"']?([\w-]+)[\"']?\s*[=.]")


class SettingsError(UsageError):
    """Something in a lab.toml, or in a file that it names, that cannot be meant. `line` counts from 1; 0 where no line
    can be named."""

    kind = "settings"

    def __init__(self, path: Path, line: int, key: str, problem: str, remedy: str) -> None:
        place = f"{path}:{line}" if line else str(path)
        super().__init__(f"{place}: {key}: {problem}" if key else f"{place}: {problem}", remedy=remedy)
        self.path = path
        self.line = line
        self.key = key


def refused(remedy: str) -> PydanticCustomError:
    """What a validator of ours raises for a value that will not do; `remedy` says what would."""
    return PydanticCustomError("said", "{remedy}", {"remedy": remedy})


def load_settings(path: Path) -> Settings:
    """The settings in `path`, a lab.toml. Raises `SettingsError` for anything wrong in it."""
    return settings_from(path, read_text(path))


def settings_from(path: Path, text: str) -> Settings:
    """The settings in `text`, which is or is to be the lab.toml at `path`. Raises `SettingsError`."""
    return parse_as(Settings, path, text).located(path.parent)


def parse_as(model: type[Model], path: Path, text: str) -> Model:
    """The TOML `text` of the file at `path` as a `model`. Raises `SettingsError` for the first thing wrong in it."""
    document = _parse(path, text)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        # A misspelt key is told as that, not as another one that is missing.
        first = min(error.errors(), key=lambda one: one["type"] == "missing")
        raise _refusal(model, path, text, first) from None


def read_text(path: Path) -> str:
    """The text of a file that a person writes. Raises `SettingsError`."""
    try:
        data = files.read_regular(path, most=_LARGEST_FILE)
    except OSError as error:
        problem = _("It cannot be read: {reason}.").format(reason=error.strerror)
        raise SettingsError(path, 0, "", problem, _("Check that the file exists and that you may read it.")) from None
    if len(data) > _LARGEST_FILE:
        remedy = _("Is this really a {name}?").format(name=path.name)
        raise SettingsError(path, 0, "", _("The file is larger than 1 MiB."), remedy)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SettingsError(path, line, "", _("This is not UTF-8 text."), _("Save the file as UTF-8.")) from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(at[1]) if at else len(text.splitlines())
        problem = _("This is not TOML: {reason}.").format(reason=re.sub(r" \(at .*\)$", "", str(error)))
        remedy = _('Write key = value; texts go in quotes: name = "vision".')
        raise SettingsError(path, line, "", problem, remedy) from None
    except (RecursionError, ValueError) as error:
        # tomllib lets these through for thousands of nested brackets, and for integers of thousands of digits.
        problem = _("This is not TOML that can be read: {reason}.").format(reason=type(error).__name__)
        raise SettingsError(path, 0, "", problem, _("Take out the oversized value.")) from None


def line_of(text: str, location: tuple[str | int, ...]) -> int:
    """The line (from 1) where `location`, a path of keys into `text`, is set; the nearest parent's, or 0."""
    best, depth = 0, 0
    table: tuple[str | int, ...] = ()
    entries: dict[tuple[str | int, ...], int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TABLE.match(line):
            table = tuple(part.strip().strip("\"'") for part in header[2].split("."))
            if header[1] == "[[":
                entries[table] = entries.get(table, -1) + 1
                table = (*table, entries[table])
            here = table
        elif key := _KEY.match(line):
            here = (*table, key[1])
        else:
            continue
        if len(here) > depth and here == location[: len(here)]:
            best, depth = number, len(here)
    return best


def refusal_at(path: Path, location: tuple[str, ...], error: UsageError) -> SettingsError:
    """`error`, found out only later, with its place in the lab.toml at `path`."""
    line = line_of(read_text(path), location)
    return SettingsError(path, line, ".".join(location), error.message, error.remedy)


def _refusal(model: type[BaseModel], path: Path, text: str, error: ErrorDetails) -> SettingsError:
    location = tuple(part for part in error["loc"] if isinstance(part, str | int))
    line = line_of(text, location)
    key = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        problem = _("There is no such key.")
        return SettingsError(path, line, key, problem, _nearest(model, location))
    problem, remedy = _problem(error, location)
    return SettingsError(path, line, key, problem, remedy)


def _known_keys(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    named = False
    for part in location[:-1]:
        # A place in a list, and a name that the person has chosen in a table of tables.
        if isinstance(part, int) or named:
            named = False
            continue
        field = model.model_fields.get(part)
        named = field is not None and get_origin(field.annotation) is dict
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def _nearest(model: type[BaseModel], location: tuple[str | int, ...]) -> str:
    known = _known_keys(model, location)
    name = str(location[-1])
    if model is Settings and name in Settings.heads():
        return _("It stands before the first table.")
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return _("Did you mean {key}?").format(key=near[0])
    if model is Settings:
        elsewhere = [f"[{table}] {name}" for table, kind in Settings.tables().items() if name in kind.model_fields]
        if elsewhere:
            return _("It belongs here: {place}.").format(place=elsewhere[0])
    return _("Known here: {keys}.").format(keys=", ".join(known))


def _problem(error: ErrorDetails, location: tuple[str | int, ...]) -> tuple[str, str]:
    """What is wrong and what would be right, for the kinds of error that pydantic reports here."""
    shown = repr(error["input"])
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    problem = _("{value} will not do.").format(value=shown)
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return _("It is missing."), _("Write it: {key} = ...").format(key=location[-1])
        case "said":
            return problem, str(context["remedy"])
        case "literal_error":
            return problem, _("It can be {choices}.").format(choices=str(context["expected"]).replace(" or ", ", "))
        case "int_type" | "int_parsing" | "int_from_float":
            return problem, _("Write a whole number without quotes: {key} = 8888").format(key=location[-1])
        case "greater_than_equal" | "less_than_equal" if location[-1] == "port":
            return problem, _("A port is a number from 1 to 65535.")
        case "string_type":
            return problem, _('Write a text in quotes: {key} = "..."').format(key=location[-1])
        case "bool_type":
            return problem, _("Write true or false without quotes: {key} = true").format(key=location[-1])
        case "list_type":
            return problem, _('Write a list: {key} = ["one", "two"]').format(key=location[-1])
        case "model_type" | "model_attributes_type" | "dict_type":
            return problem, _("Write it as a table: a line [{key}], its keys below.").format(key=location[-1])
        case "value_error" if "trusted_proxies" in location:
            return problem, _('Write an address or a network: "10.0.0.1", "10.1.0.0/16".')
        case "value_error":
            return problem, _('Write a size as "512m", "8g" or "1.5 GiB".')
        case "string_pattern_mismatch" if location[-1] == "bind":
            return problem, _('Write an address: bind = "127.0.0.1", or "0.0.0.0" for all.')
        case "string_pattern_mismatch" if location[0] == "mounts":
            return problem, _("A mount's name has letters, digits, dashes and underscores, and starts with a letter.")
        case "string_pattern_mismatch" if location[-1] == "name":
            return problem, _("A name has letters, digits, spaces, dots and dashes, at most 63.")
        case _:
            return problem, str(error["msg"])


def default_document(*, name: str, language: str, stack: str, port: int) -> str:
    """A lab.toml that shows every key with its default and what it is for, as `init` writes it."""
    chosen: dict[tuple[str, str], object] = {("lab", "name"): name, ("lab", "language"): language}
    chosen |= {("environment", "stack"): stack, ("access", "port"): port}
    lines = [_("# A lab's settings. `ailab up` applies what you change here."), ""]
    lines += [*(_setting(key, field, field.default) for key, field in Settings.heads().items()), ""]
    for section, model in Settings.tables().items():
        if section == _BEFORE_MOUNTS:
            lines += _mounts()
        lines.append(f"[{section}]")
        for key, field in model.model_fields.items():
            lines.append(_setting(key, field, chosen.get((section, key), shown_default(key, field))))
        lines.append("")
    return "\n".join(lines)


def shown_default(key: str, field: FieldInfo) -> object:
    """A default as a person would write it: sizes with their unit, no limit as an empty text."""
    if key not in _SIZES:
        return field.default
    return f"{field.default // GIB}g" if field.default else ""


def _mounts() -> list[str]:
    """The table that a new lab has nothing in, with examples."""
    description = _(Settings.model_fields["mounts"].description or "")
    examples = ['datasets = { path = "/mnt/data", read_only = true }', 'notebooks = "/home/ada/notebooks"']
    return [f"{'[mounts]':<36}# {description}", *(f"# {example}" for example in examples), ""]


def _setting(key: str, field: FieldInfo, value: object) -> str:
    setting = f"{key} = {_toml(value)}"
    return f"{setting:<36}# {_(field.description or '')}"


def set_value(path: Path, section: str, key: str, value: object) -> None:
    """Change one key of the lab.toml at `path`; comments and order stay. A value that will not do changes nothing."""
    import tomlkit

    document = tomlkit.parse(read_text(path))
    document.setdefault(section, tomlkit.table())[key] = value
    text = tomlkit.dumps(document)
    settings_from(path, text)
    write(path, text)


def write(path: Path, text: str) -> None:
    """Put `text` in the place of the lab.toml at `path`: for its account alone where there are credentials in it, else
    with the mode that it has."""
    files.replace(path, text, mode=PRIVATE if has_credentials(text) else None)


def has_credentials(text: str) -> bool:
    """Whether a lab.toml has an address with a password or a token in it, in a comment as well."""
    return _CREDENTIALS.search(text) is not None


def close_to_others(path: Path) -> bool:
    """Make a lab.toml with credentials one that only its account can read; whether that was still to be done. One of
    another account, or that cannot be read, is left as it is."""
    with contextlib.suppress(OSError, SettingsError):
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & 0o077 and has_credentials(read_text(path)):
            path.chmod(PRIVATE)
            return True
    return False


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
