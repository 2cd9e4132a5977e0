"""`pipeline verify`."""

from __future__ import annotations

import typer

from pipeline.cli import words
from pipeline.cli.outcome import FAILED

EXAMPLES = """Examples:

pipeline verify stroke_perfusion_segmentation

pipeline verify my_bundle

pipeline verify runs/my_bundle/2026-01-31_12-00-00

Exit status: 0 all is in order; 1 something is not, each is named; 2 no bundle of that name.
"""


def command(bundle: words.Bundle) -> None:
    """Check that a bundle is complete, up to date, and data only (a config that could run code is refused)."""
    from pipeline.bundle import find_bundle, verify

    folder = find_bundle(bundle)
    problems = verify(folder)
    for problem in problems:
        typer.secho(problem, fg="red", err=True)
    if problems:
        raise typer.Exit(FAILED)
    typer.echo(f"{folder.name}: complete, up to date, data only")
