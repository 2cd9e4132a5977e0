"""`pipeline evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import words
from pipeline.cli.outcome import SOME_REFUSED, keeps

EXAMPLES = """Examples:

pipeline evaluate stroke_perfusion_segmentation --data my_labelled_scans

pipeline evaluate hippocampus_mri_segmentation --data hippocampus --out measured

pipeline evaluate stroke_perfusion_segmentation --data cases.csv --pseudonyms names.csv

Exit status: 0 all measured; 3 some cases were refused; 2 what was given is not usable; 130 interrupted.
"""


def command(
    bundle: words.Bundle,
    data: words.Dataset,
    changes: words.Overrides = None,
    weights: words.Weights = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the tables (default: a new one below runs/).")
    ] = None,
    layout: words.Layout = None,
    pseudonyms: words.Pseudonyms = None,
) -> None:
    """Measure a trained bundle on labelled cases, per case and class, in each case's own space."""
    changed = words.overrides(changes, layout, pseudonyms, (data, bundle))
    from pipeline.bundle import run

    with keeps("measured cases are not kept; to redo it: the same command again"):
        summary = run.evaluate(bundle, data, weights=weights, out=out, overrides=changed)
    typer.echo(summary.table)
    typer.echo(f"Tables: {summary.run_dir}  ({summary.seconds:.0f} s)")
    if summary.refused:
        raise typer.Exit(SOME_REFUSED)
