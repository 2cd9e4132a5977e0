"""`pipeline quantize`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli import words
from pipeline.cli.outcome import FAILED, keeps

EXAMPLES = """Examples:

pipeline quantize hippocampus_mri_segmentation --data hippocampus

pipeline quantize runs/my_bundle/RUN --data my_scans --cases 50

pip install 'monai-volume-pipeline\\[openvino]'  (what it needs)

Exit status: 0 accepted; 1 not accepted; 2 what was given is not usable; 130 interrupted.
"""


def command(
    bundle: words.Bundle,
    data: words.Dataset,
    changes: words.Overrides = None,
    cases: Annotated[int, typer.Option(min=1, metavar="N", help="Training cases to calibrate with, at most.")] = 30,
    most_lost: Annotated[
        float, typer.Option(min=0.0, metavar="DICE", help="What int8 may lose in any class to be accepted.")
    ] = 0.002,
    layout: words.Layout = None,
    pseudonyms: words.Pseudonyms = None,
) -> None:
    """Make a bundle's trained network several times as fast on CPUs, in 8-bit integers, if that costs no accuracy.

    Calibrated on cases that it was trained on, measured on the validation cases, as models/split.json names them.
    Accepted where it loses at most 0.002 of Dice in every class; then models/ holds it and its table, and predictions
    use it wherever it is the fastest (runtime=auto). Exit status 1 where it is not: the bundle stays as it is.
    """
    changed = words.overrides(changes, layout, pseudonyms, (data, bundle))
    from pipeline.bundle.quantize import quantize

    with keeps("the bundle is as it was; to redo it: the same command again"):
        summary = quantize(bundle, data, cases=cases, most_lost=most_lost, overrides=changed)
    typer.echo(summary.table)
    lost, measured = summary.record.largest_loss, summary.record.validation_cases
    said = f"{lost:.4f} of Dice lost at most, on {measured} validation cases ({summary.seconds:.0f} s)"
    if not summary.accepted:
        typer.secho(f"Not accepted: {said}; --most-lost {most_lost} is allowed", fg="red", err=True)
        raise typer.Exit(FAILED)
    typer.echo(f"Accepted: {said}; {summary.models}")
