"""The entry of the `ailab` command: the table of commands, and the one place that catches errors and exits."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import sys
import traceback
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import FrameType

import typer
from typer.exceptions import TyperException

from ailab import __version__, disk, files
from ailab.cli import invocation
from ailab.cli.output import as_typed, note
from ailab.cli.usage import usage_error
from ailab.errors import AilabError, UsageError
from ailab.i18n import _, use_language
from ailab.paths import MachinePaths, account_name, locate_lab

_INTERRUPTED = 130
_DETAIL_LINES = 20
# A path that no file can have.
_NO_SUCH_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)
_NOT_PERMITTED = (errno.EACCES, errno.EPERM, errno.EROFS)


def build_app(first: str = "") -> typer.Typer:
    """The commands in the order in which a person meets them; the one that `first` names alone, where it names one:
    to load the others and to make their options takes longer than many a command."""
    commands = (
        ("up", "up:up", _("Make what is missing, start what is stopped, show where to go.")),
        ("status", "status:status", _("What runs, where, and how it is.")),
        ("open", "open_:open_lab", _("A link that logs you in, opened in the browser where there is one.")),
        ("verify", "verify:verify", _("Prove the environment in the lab's own kernel.")),
        ("doctor", "doctor:doctor", _("What is wrong with this machine and this lab, and what to type.")),
        ("down", "down:down", _("Stop everything that up started; keep all files.")),
        ("init", "init:init", _("Make a lab: a folder with a lab.toml.")),
        ("run", "run:run", _("Queue a job: it runs when its turn comes, and goes on when you leave.")),
        ("jobs", "jobs:app", _("What waits, what runs, what has ended.")),
        ("logs", "logs:logs", _("The output of a job, or of a task of the lab.")),
        ("rerun", "rerun:rerun", _("Run again exactly what a job has run.")),
        ("stop", "stop:stop", _("End jobs, with the time that they need to save their state.")),
        ("top", "top:top", _("Who holds what of the machine.")),
        ("events", "events:events", _("Who did what and when.")),
        ("env", "env:app", _("The environment: lock, build, list, use, roll back.")),
        ("image", "image:app", _("The lab as a container image: build it, run it, share it.")),
        ("bundle", "bundle:app", _("The lab in one file, for machines without a network.")),
    )
    app = typer.Typer(
        name="ailab",
        help=_("A private AI lab on this machine: JupyterLab, TensorFlow that imports, TensorBoard, one login."),
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=_("Anywhere: --lab DIR names the lab, --debug shows tracebacks, --version the version."),
    )
    # With it one command alone is still one by its name.
    app.callback()(lambda: None)
    wanted = [one for one in commands if one[0] == first] or commands
    for name, place, text in wanted:
        module, _colon, function = place.partition(":")
        made = getattr(import_module(f"ailab.cli.{module}"), function)
        if function == "app":
            app.add_typer(made(), name=name, help=text)
        else:
            # What comes after the job's command is the command's.
            settings = {"allow_interspersed_args": False} if name == "run" else None
            app.command(name, help=text, context_settings=settings)(made)
    return app


def main(argv: list[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 failed, 2 usage, 130 interrupted."""
    # Nearly all that a command makes, its modules above all, it keeps: looking for garbage takes a tenth of its time.
    gc.set_threshold(50_000)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _interrupt)
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """To be told to end is what Ctrl-C is: what was begun is ended, and what is half done is cleared away."""
    raise KeyboardInterrupt


def run(argv: list[str]) -> int:
    """Run one command; its exit status."""
    try:
        rest = invocation.take_global_options(argv)
        files.tell_waits(note)
        if invocation.current.version:
            print(f"ailab {__version__}")
            return 0
        status = build_app(rest[0] if rest else "")(rest, prog_name="ailab", standalone_mode=False)
        if status == _INTERRUPTED:
            raise KeyboardInterrupt
        return status if isinstance(status, int) else 0
    except TyperException as refused:
        error = usage_error(refused)
        if error is not None:
            _tell(error)
        return UsageError.exit_code
    except AilabError as error:
        error = disk.cause(error, _folders())
        _tell(error)
        return error.exit_code
    except KeyboardInterrupt:
        note(_("Interrupted. Nothing half-made is in use; the same command goes on."))
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone; say nothing more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        _tell(_explained(error))
        return 1
    finally:
        use_language(None)


def _explained(error: Exception) -> AilabError:
    """What we did not foresee: the disk's fault, the account's, else ours."""
    if isinstance(error, OSError) and error.errno in _NOT_PERMITTED and _is_in_image():
        return _not_permitted(error)
    told = disk.explain(error, _folders())
    if told is not None:
        return told
    if isinstance(error, OSError) and error.errno in _NOT_PERMITTED:
        return _not_permitted(error)
    bug = _bug(error)
    return disk.full_among(_folders()) or bug


def _folders() -> tuple[Path, ...]:
    """Where the lab that was meant, and ailab, write."""
    try:
        root: Path | None = locate_lab(invocation.current.lab, Path.cwd(), os.environ)
    except (AilabError, OSError):
        root = None
    return disk.folders_of(root, MachinePaths.from_environment(os.environ))


def _is_in_image() -> bool:
    return MachinePaths.from_environment(os.environ).image.exists()


def _not_permitted(error: OSError) -> AilabError:
    if _is_in_image():
        return AilabError(
            _("This lab runs in an image, in which nothing is built or changed."),
            remedy=_("Change it where the image is made, and there: ailab image build"),
            detail=str(error),
        )
    return AilabError(
        _("The account {account} may not use {path}.").format(account=account_name(), path=error.filename),
        remedy=_("See what is wrong, and the commands that mend it: ailab doctor"),
    )


def _tell(error: AilabError) -> None:
    if invocation.current.debug:
        traceback.print_exception(error)
    error.remedy = as_typed(error.remedy)
    if invocation.current.json:
        print(json.dumps(error.body(), ensure_ascii=False))
        return
    note(_("Error: {message}").format(message=error.message))
    for line in error.detail.splitlines()[-_DETAIL_LINES:]:
        print(f"  | {line}", file=sys.stderr)
    if error.remedy:
        note(_("What to do: {remedy}").format(remedy=error.remedy))


def _bug(error: Exception) -> AilabError:
    """An error that we did not foresee: the person gets one sentence, the traceback goes to a file."""
    if isinstance(error, OSError) and error.errno in _NO_SUCH_NAME:
        return UsageError(f"{str(error.filename)[:200]}: {error.strerror}", remedy=_("Check the path."))
    trace = "".join(traceback.format_exception(error))
    log = Path(os.environ.get("TMPDIR", "/tmp")) / f"ailab-error-{os.getpid()}.log"  # noqa: S108  a name of our own
    try:
        # Of a name of our own in a folder that all may write; with what the error carried.
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as sink:
            sink.write(f"{datetime.now(UTC).isoformat()} ailab {__version__} {sys.argv[1:2]}\n{trace}")
    except OSError:
        log = Path(os.devnull)
    summary = f"{type(error).__name__}: {error}"
    return AilabError(
        _("This is a bug in ailab: {summary}").format(summary=summary),
        remedy=_("Report it with {log}; --debug shows the same.").format(log=log),
    )


if __name__ == "__main__":
    main()
