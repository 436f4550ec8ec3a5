"""What one call of the command line means everywhere: --lab, --debug, --json, --version, wherever they stand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ailab.errors import UsageError
from ailab.i18n import _


@dataclass
class Invocation:
    """`lab` is the folder that --lab names; `json` is only noted, the commands declare it themselves."""

    lab: Path | None = None
    debug: bool = False
    json: bool = False
    version: bool = False


current = Invocation()


def take_global_options(argv: list[str]) -> list[str]:
    """Note the global options of `argv` in `current` and return the rest; what follows `--` is not ours."""
    ours = argv[: argv.index("--")] if "--" in argv else argv
    current.lab, current.debug, current.json, current.version = None, False, "--json" in ours, False
    for word in argv:
        _refuse_other_than_text(word)
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            return [*rest, word, *words]
        if word == "--lab":
            current.lab = _folder(next(words, ""))
        elif word.startswith("--lab="):
            current.lab = _folder(word.removeprefix("--lab="))
        elif word == "--debug":
            current.debug = True
        elif word == "--version":
            current.version = True
        else:
            rest.append(word)
    return rest


def _refuse_other_than_text(word: str) -> None:
    """Bytes that are no UTF-8 stand in an argument as halves of surrogate pairs, which can neither be kept nor said."""
    try:
        word.encode()
    except UnicodeEncodeError:
        shown = word.encode("utf-8", "replace").decode()
        raise UsageError(
            _("This argument is not UTF-8 text: {word}").format(word=shown[:200]),
            remedy=_("Give the file or the job a name in UTF-8."),
        ) from None


def _folder(text: str) -> Path:
    if not text or text.startswith("--"):
        raise UsageError(_("--lab needs a folder."), remedy=_("For example: ailab --lab ~/vision status"))
    return Path(text).expanduser().absolute()
