"""The console command `pipeline`: its commands, how errors are shown, and what the exit status means."""

from __future__ import annotations

import re
import signal
import sys
import threading
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline import __version__
from pipeline.cli import (
    build,
    check,
    compare,
    demo,
    evaluate,
    init,
    measure,
    phantom,
    predict,
    preview,
    publish,
    quantize,
    report,
    train,
    verify,
    verify_run,
    words,
)
from pipeline.cli.log import show_log
from pipeline.cli.outcome import FAILED_INPUT, INTERRUPTED, pipeline_error_behind

EXIT_STATUS = (
    "Exit status: 0 all done; 1 failed; 2 the command line or the input is not usable; "
    "3 some cases were refused, the others are done; 130 interrupted."
)


UsageError: Any = typer.BadParameter.__base__
"""A wrong command line. Typer's releases differ in whose class that is: click's, or that of a copy of click."""


class Commands(TyperGroup):
    """Shows an error that comes from the input as one message, and an interruption as one line, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            # what a batch system or a logout sends loses no more than Ctrl-C does
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise UsageError(error.format_message() + _what_was_meant(error), error.ctx) from None
        except KeyboardInterrupt as interrupt:
            what_is_kept = str(interrupt) or "start the command again to redo it"
            typer.secho(f"\nInterrupted: {what_is_kept}", fg="yellow", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            message = pipeline_error_behind(error)
            if message is None or ctx.params["debug"]:
                raise
            typer.secho(f"Error: {message}", fg="red", err=True)
            raise typer.Exit(FAILED_INPUT) from None


def _what_was_meant(error: Any) -> str:
    """What to write instead of a wrong command line: the config's key where an option was tried, or a whole example."""
    command = error.ctx.command if error.ctx else None
    if command is None:
        return ""
    extra = re.search(r"unexpected extra argument(?:s|\(s\))? \((.+)\)", error.format_message())
    if extra:
        meant = words.path_with_spaces(error.ctx.params.values(), extra[1])
        return f". To fix it: {meant}" if meant else ""
    takes_keys = any(parameter.metavar == "KEY=VALUE" for parameter in command.params)
    if hasattr(error, "option_name") and takes_keys and not error.possibilities:
        from pipeline.bundle import nearest_keys

        near = nearest_keys(error.option_name.strip("-").replace("-", "_"))
        return f". Values of the config are written without dashes: {near[0] if near else 'KEY'}=VALUE"
    if error.format_message().startswith("Missing "):
        examples = (command.epilog or "").splitlines()
        return next((f" For example: {line}" for line in examples if line.startswith("pipeline ")), "")
    return ""


app = typer.Typer(
    cls=Commands,
    epilog=EXIT_STATUS,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pipeline {__version__}")
        raise typer.Exit


@app.callback()
def pipeline(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="PIPELINE_DEBUG", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """Configure, train, check and explain MONAI bundles for 3D medical images.

    Start with `pipeline demo`; for data of your own with `pipeline init --help`.
    """
    show_log()


for module in (
    demo,
    phantom,
    check,
    init,
    build,
    preview,
    train,
    evaluate,
    quantize,
    predict,
    measure,
    compare,
    report,
    verify,
    publish,
    verify_run,
):
    app.command(module.__name__.rpartition(".")[2].replace("_", "-"), epilog=module.EXAMPLES)(module.command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: the words after ``pipeline``; by default the process's own.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name that the terminal can't show must not end what is done with it
            stream.reconfigure(errors="backslashreplace")
    typed = sys.argv[1:] if arguments is None else arguments
    # `--debug` belongs to the whole command, but is typed where one stands: at the end of the line that failed.
    app([word for word in typed if word == "--debug"] + [word for word in typed if word != "--debug"], "pipeline")
