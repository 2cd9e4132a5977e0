"""`pipeline verify-run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import words
from pipeline.cli.outcome import FAILED

EXAMPLES = """Examples:

pipeline verify-run runs/hippocampus_mri_segmentation/2026-01-31_12-00-00

pipeline verify-run runs/trained --data Task04_Hippocampus

pipeline verify-run measured --data folder_of_both

Exit status: 0 all is as it was; 1 something differs; 2 no run, or no dataset, to compare with.
"""


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A training, an evaluation, a prediction, or a measurement.")
    ],
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DATASET", help="Compare the inputs too: what the run was made from."),
    ] = None,
    layout: words.Layout = None,
    pseudonyms: words.Pseudonyms = None,
) -> None:
    """Check that a run is what it was: its files, its weights, and its inputs, by the digests in run.json.

    What is otherwise here and now without being the run's fault (versions, a bundle that went on) is said and no error.
    """
    from pipeline.bundle.verify_run import verify_run

    check = verify_run(run, data, layout=layout, pseudonyms=pseudonyms)
    for remark in check.remarks:
        typer.echo(f"remark   {remark}")
    for difference in check.differs:
        typer.secho(f"differs  {difference}", fg="red", err=True)
    same = ", ".join(f"{number} {what}" for what, number in check.same.items() if number)
    typer.echo(f"{same or 'nothing'} as recorded, {len(check.differs)} differ")
    if check.differs:
        raise typer.Exit(FAILED)
