"""How a command ends: its exit status, the error behind an error, and what an interruption leaves."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from pipeline.errors import PipelineError

FAILED, FAILED_INPUT, SOME_REFUSED, INTERRUPTED = 1, 2, 3, 130


def pipeline_error_behind(error: BaseException) -> PipelineError | None:
    """The error that the user can act on: ``error`` itself or what caused it; None where it is a fault of this package.

    MONAI wraps whatever a transform raises into a RuntimeError that names neither case nor file.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, PipelineError):
        cause = cause.__cause__
    return cause


@contextmanager
def keeps(what: str) -> Iterator[None]:
    """Gives an interruption of the body a sentence on what is kept and how to go on, unless it carries one already."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(*(interrupt.args or (what,))) from None


@contextmanager
def own_faults_end_with(status: int) -> Iterator[None]:
    """Shows an exception that is none of the input's with its traceback, and exits with ``status``: 1, with which
    Python ends, may have a meaning of its own."""
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        if pipeline_error_behind(error) is not None:
            raise
        typer.echo("".join(traceback.format_exception(error)), err=True, nl=False)
        raise typer.Exit(status) from error
