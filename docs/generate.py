"""Write docs/reference/cli.md and lab-toml.md from the code: `PYTHONPATH=src python docs/generate.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from ailab.cli.main import build_app
from ailab.i18n import use_language
from ailab.settings import Mount, Settings
from ailab.settings_file import default_document, shown_default

REFERENCE = Path(__file__).parent / "reference"
NOTICE = "<!-- Written by docs/generate.py. Do not edit: change the code or the script, and run it again. -->"

CLI_HEAD = """
# The command line

    ailab [--lab DIR] [--debug] COMMAND [OPTIONS]

From a checkout the command is `./ailab` (see [the launcher](launcher.md)). These pages leave the `./` out.

## For every command

| option | meaning |
|---|---|
| `--lab DIR` | The lab's folder. Without it, the lab is looked for as described below. |
| `--debug` | On an error, show the traceback as well. |
| `--version` | Print the version and exit. |
| `-h`, `--help` | Tell what the command does and exit. |

`--lab`, `--debug` and `--version` may stand before or after the command's name.

Without `--lab`, the lab is the current folder or the nearest one above it that has a `lab.toml`, as git finds a
repository. Where there is none, it is the default lab: `~/ailab`, as root `/srv/ailab`. `up` makes the default lab when
it does not exist.

Results go to standard output. Progress and errors go to standard error. With `--json`, standard output is one JSON
document and nothing else; [JSON output](json.md) has the shapes. `AILAB_LANG=en` or `AILAB_LANG=zh` sets the language;
without it the locale decides.

## Exit codes

| code | meaning |
|---|---|
| 0 | Done. |
| 1 | It failed. The message says why and what to do. |
| 2 | It cannot be meant: an unknown command or option, a folder that is no lab, a mistake in `lab.toml`. |
| 130 | Interrupted with Ctrl-C. Nothing half-made is in use; the same command goes on. |
"""

SETTINGS_HEAD = """
# lab.toml

The settings of a lab, one TOML file in its folder. `ailab init` writes it with every key, its default and what it is
for. A key that is left out has its default.

`ailab up` applies what you changed. A mistake is refused with the file, the line, the key and what would be right, and
the lab goes on as it was. So is a key that does not exist.

Five things to know:

- `[resources]` limits a workspace from its next start: `down` and `up`, or in JupyterLab *File*, *Hub Control Panel*.
  `memory` is a container's as a whole; without containers it is each process's own, and `shm` and `pids` do not apply.
- `stacks` names files with [stacks of your own](../how-to/own-stack.md). It stands before the first table.
- A path may be relative to the lab's folder, or start with `~`.
- `[environment] gpu`: "auto" installs CUDA libraries where there is a GPU, "required" refuses to go on without one that
  computes. See [Compute on a GPU](../gpu.md).
- A size is a text such as `"512m"`, `"8g"` or `"1.5 GiB"`, or a number of bytes. Units are powers of 1024.
"""

MOUNTS = """
Folders of this machine that are in the lab, each by a name: `datasets = { path = "/mnt/data", read_only = true }`, or
for the path alone `notebooks = "/home/ada/notebooks"`. Without containers a mount is a link in the lab's folder, and
`read_only` is not enforced; in a container it is mounted at `/lab/NAME`. `notebooks`, `models` and `logs` are the lab's
own folders unless they are named here. See [People's tasks in containers](../how-to/containers.md).
"""


def command_reference() -> str:
    """The text of cli.md, in English."""
    use_language("en")
    try:
        root = typer.main.get_command(build_app())
        parts = [NOTICE, CLI_HEAD.strip(), "## Commands", *_commands(root, "ailab")]
    finally:
        use_language(None)
    return "\n\n".join(parts) + "\n"


def _commands(group: Any, words: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{words} {name}")
        else:
            yield _command(command, f"{words} {name}")


def _command(command: Any, words: str) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    usage = " ".join([words, *(_argument_usage(one) for one in arguments), *(["[OPTIONS]"] if options else [])])
    parts = [f"### {words}", command.help, f"    {usage}"]
    if arguments:
        rows = [(f"`{one.name.upper()}`", _default(one), one.help) for one in arguments]
        parts.append(_table(("argument", "default", "meaning"), rows))
    if options:
        rows = [(_option_usage(one), _default(one), _option_help(one)) for one in options]
        parts.append(_table(("option", "default", "meaning"), rows))
    return "\n\n".join(parts)


def _argument_usage(argument: Any) -> str:
    return argument.name.upper() if argument.required else f"[{argument.name.upper()}]"


def _option_usage(option: Any) -> str:
    value = "" if getattr(option, "is_flag", False) else f" {option.name.upper()}"
    return ", ".join(f"`{name}{value}`" for name in [*option.opts, *option.secondary_opts])


def _option_help(option: Any) -> str:
    least, most = getattr(option, "min", None), getattr(option, "max", None)
    return option.help if least is None else f"{option.help} From {least} to {most}."


def _default(parameter: Any) -> str:
    """The default as one would type it; an off switch and an empty text have none to show."""
    if parameter.required:
        return "required"
    value = parameter.default
    if getattr(parameter, "is_flag", False):
        return f"`{parameter.opts[0]}`" if value else "off"
    return "none" if value in (None, "") else f"`{value}`"


def settings_reference() -> str:
    """The text of lab-toml.md, in English."""
    use_language("en")
    try:
        example = default_document(name="lab", language="en", stack="tensorflow-2.9", port=8888).strip()
    finally:
        use_language(None)
    parts = [NOTICE, SETTINGS_HEAD.strip(), "## Example", f"A new lab's file:\n\n```toml\n{example}\n```"]
    parts += ["## Before the tables", _settings_table(Settings.heads())]
    for section, model in Settings.tables().items():
        parts += [f"## [{section}]", _settings_table(model.model_fields)]
    parts += ["## [mounts]", MOUNTS.strip(), _settings_table(Mount.model_fields)]
    return "\n\n".join(parts) + "\n"


def _settings_table(fields: dict[str, FieldInfo]) -> str:
    rows = [
        (f"`{key}`", _kind(field), _toml_default(key, field), field.description or "") for key, field in fields.items()
    ]
    return _table(("key", "kind", "default", "meaning"), rows)


def _is_size(field: FieldInfo) -> bool:
    return field.annotation is int and any(isinstance(one, BeforeValidator) for one in field.metadata)


def _kind(field: FieldInfo) -> str:
    if _is_size(field):
        return "size"
    if get_origin(field.annotation) is Literal:
        return " or ".join(f'`"{choice}"`' for choice in get_args(field.annotation))
    if get_origin(field.annotation) is list:
        return "list of texts"
    if get_origin(field.annotation) in (Union, UnionType):
        return '`"all"` or list of texts'
    if field.annotation is bool:
        return "`true` or `false`"
    if field.annotation is int:
        least = next(one.ge for one in field.metadata if hasattr(one, "ge"))
        most = next(one.le for one in field.metadata if hasattr(one, "le"))
        return f"whole number, {least} to {most}"
    return "text"


def _toml_default(key: str, field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if _is_size(field):
        return f'`"{shown_default(key, field)}"`'
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f'`"{field.default}"`' if isinstance(field.default, str) else f"`{field.default}`"


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A markdown table; a bar inside a cell would end it."""
    lines = [headings, ("---",) * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def pages() -> dict[Path, str]:
    """Each generated file and its text."""
    return {REFERENCE / "cli.md": command_reference(), REFERENCE / "lab-toml.md": settings_reference()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
