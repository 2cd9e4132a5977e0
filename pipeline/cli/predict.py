"""`pipeline predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import words
from pipeline.cli.outcome import keeps

if TYPE_CHECKING:
    from pipeline.engines.cohort import CohortResult

EXAMPLES = """Examples:

pipeline predict stroke_perfusion_segmentation my_scans lesions

pipeline predict stroke_perfusion_segmentation my_scans lesions --probabilities

pipeline predict stroke_perfusion_segmentation my_scans lesions --pseudonyms names.csv
"""


def command(
    bundle: words.Bundle,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A dataset, a folder of case folders, or one case.")],
    target: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder of the label maps.")],
    changes: words.Overrides = None,
    weights: words.Weights = None,
    layout: words.Layout = None,
    pseudonyms: words.Pseudonyms = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write the class probabilities too.")] = False,
) -> None:
    """Segment every case of a folder; each label map lies on exactly the grid of its case.

    One bad case does not stop the others: the table says which were done, refused or failed, and why.
    """
    changed = words.overrides(changes, layout, pseudonyms)
    from pipeline.bundle import run

    with keeps(f"every label map in {target} is whole; to redo all: the same command again"):
        result = run.predict(bundle, source, target, weights=weights, probabilities=probabilities, overrides=changed)
    typer.echo(closing_words(result, target))
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def closing_words(result: CohortResult, folder: Path) -> str:
    """A line with the reason for every case that is not done, then the counts; ``predictions.csv`` has all cases."""
    lines = [f"{o.status}  {o.case}: {o.reason}" for o in result.outcomes if o.reason]
    repaired = sum(o.status == "done" and bool(o.repairs) for o in result.outcomes)
    if repaired:
        lines.append(f"{repaired} done with remarks on what was read (units, grids): column repairs of the table")
    counts = ", ".join(f"{number} {status}" for status, number in result.counts.items())
    table = "the tables could not be written" if result.unwritten else f"every case: {folder / 'predictions.csv'}"
    return "\n".join([*lines, f"{counts}; {table}"])
