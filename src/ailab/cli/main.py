"""The entry of the `ailab` command: the table of commands, and the one place that catches errors and exits."""

from __future__ import annotations

import errno
import gc
import json
import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

import typer
from typer.exceptions import TyperException

from ailab import __version__
from ailab.cli import (
    bundle,
    doctor,
    down,
    env,
    events,
    image,
    init,
    invocation,
    jobs,
    logs,
    open_,
    rerun,
    run as run_,
    status,
    stop,
    top,
    up,
    verify,
)
from ailab.cli.output import as_typed, note
from ailab.cli.usage import usage_error
from ailab.errors import AilabError, UsageError
from ailab.i18n import _, use_language
from ailab.paths import MachinePaths, account_name

_INTERRUPTED = 130
_DETAIL_LINES = 20
_NOT_PERMITTED = (errno.EACCES, errno.EPERM, errno.EROFS)


def build_app() -> typer.Typer:
    """The commands in the order in which a person meets them."""
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
    app.command("up", help=_("Make what is missing, start what is stopped, show where to go."))(up.up)
    app.command("status", help=_("What runs, where, and how it is."))(status.status)
    app.command("open", help=_("A link that logs you in, opened in the browser where there is one."))(open_.open_lab)
    app.command("verify", help=_("Prove the environment in the lab's own kernel."))(verify.verify)
    app.command("doctor", help=_("What is wrong with this machine and this lab, and what to type."))(doctor.doctor)
    app.command("down", help=_("Stop everything that up started; keep all files."))(down.down)
    app.command("init", help=_("Make a lab: a folder with a lab.toml."))(init.init)
    own_words = {"allow_interspersed_args": False}
    app.command("run", help=_("Queue a job: it runs when its turn comes, and goes on when you leave."),
                context_settings=own_words)(run_.run)  # fmt: skip
    app.add_typer(jobs.app(), name="jobs", help=_("What waits, what runs, what has ended."))
    app.command("logs", help=_("The output of a job, or of a task of the lab."))(logs.logs)
    app.command("rerun", help=_("Run again exactly what a job has run."))(rerun.rerun)
    app.command("stop", help=_("End jobs, with the time that they need to save their state."))(stop.stop)
    app.command("top", help=_("Who holds what of the machine."))(top.top)
    app.command("events", help=_("Who did what and when."))(events.events)
    app.add_typer(env.app(), name="env", help=_("The environment: lock, build, list, use, roll back."))
    app.add_typer(image.app(), name="image", help=_("The lab as a container image: build it, run it, share it."))
    app.add_typer(bundle.app(), name="bundle", help=_("The lab in one file, for machines without a network."))
    return app


def main(argv: list[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 failed, 2 usage, 130 interrupted."""
    # Nearly all that a command makes, its modules above all, it keeps: looking for garbage takes a tenth of its time.
    gc.set_threshold(50_000)
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """Run one command; its exit status."""
    try:
        rest = invocation.take_global_options(argv)
        if invocation.current.version:
            print(f"ailab {__version__}")
            return 0
        status = build_app()(rest, prog_name="ailab", standalone_mode=False)
        if status == _INTERRUPTED:
            raise KeyboardInterrupt
        return status if isinstance(status, int) else 0
    except TyperException as refused:
        error = usage_error(refused)
        if error is not None:
            _tell(error)
        return UsageError.exit_code
    except AilabError as error:
        _tell(error)
        return error.exit_code
    except KeyboardInterrupt:
        note(_("Interrupted. Nothing half-made is in use; the same command goes on."))
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone; say nothing more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        _tell(_not_permitted(error) if error.errno in _NOT_PERMITTED else _bug(error))
        return 1
    except Exception as error:
        _tell(_bug(error))
        return 1
    finally:
        use_language(None)


def _not_permitted(error: OSError) -> AilabError:
    if MachinePaths.from_environment(os.environ).image.exists():
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
    trace = "".join(traceback.format_exception(error))
    log = Path(os.environ.get("TMPDIR", "/tmp")) / f"ailab-error-{os.getpid()}.log"  # noqa: S108  a name of our own
    try:
        with log.open("x", encoding="utf-8") as sink:
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
