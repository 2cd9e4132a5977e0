"""`pipeline predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import words
from pipeline.cli.log import first_process
from pipeline.cli.outcome import keeps

if TYPE_CHECKING:
    from pipeline.engines.cohort import CohortResult

EXAMPLES = """Examples:

pipeline predict stroke_perfusion_segmentation my_scans lesions

The same again after an interruption, or when cases have come in: what holds is kept, the rest is done.

pipeline predict hippocampus_mri_segmentation t1.nii.gz segmentations

pipeline predict stroke_perfusion_segmentation cases.csv lesions --probabilities

pipeline predict stroke_perfusion_segmentation bids_dataset lesions --pseudonyms names.csv

pipeline predict my_bundle my_scans out --weights runs/fold0/models/model.pt --weights runs/fold1/models/model.pt

Several GPUs, or machines with a common disk: torchrun --nproc_per_node=4 -m pipeline predict BUNDLE INPUT OUTPUT

Exit status: 0 all done; 3 some are not; 1 none is, or no table; 2 what was given is not usable; 130 interrupted.
"""


def command(
    bundle: words.Bundle,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT", help="A dataset (folders, BIDS...), a list of cases (CSV, JSON), one case, or one file."
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder of the label maps.")],
    changes: words.Overrides = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Weights instead of the bundle's models/model.pt; given several times, an ensemble."
        ),
    ] = None,
    layout: words.Layout = None,
    pseudonyms: words.Pseudonyms = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write the class probabilities too.")] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--redo",
            help="Keep results in OUTPUT that still hold (same input, bundle, weights, by their digests), or redo all.",
        ),
    ] = True,
) -> None:
    """Segment every case of a dataset; each label map lies on exactly the grid of its case.

    One bad case does not stop the others: the table says which were done, refused or failed, and why. Whatever ends the
    command, each result that is there is whole, and the same command goes on.
    """
    changed = words.overrides(changes, layout, pseudonyms, (source, target))
    from pipeline.bundle import run

    with keeps(f"every label map in {target} is whole; the same command goes on"):
        result = run.predict(
            bundle,
            source,
            target,
            weights=weights or None,
            probabilities=probabilities,
            resume=resume,
            overrides=changed,
        )
    if not first_process():
        return
    typer.echo(closing_words(result, target))
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def closing_words(result: CohortResult, folder: Path) -> str:
    """A line with the reason for every case that is not done, then the counts; ``predictions.csv`` has all cases."""
    lines = [f"{o.status}  {o.case}: {o.reason}" for o in result.outcomes if o.reason]
    repaired = sum(o.status == "done" and bool(o.repairs) for o in result.outcomes)
    if repaired:
        lines.append(
            f"{repaired} done with remarks (units, grids, unlike the training cases, or one of them): "
            "column repairs of the table"
        )
    kept = sum(o.kept for o in result.outcomes)
    if kept:
        lines.append(f"{kept} of the done ones are of an earlier run and still hold (--redo makes them again)")
    counts = ", ".join(f"{number} {status}" for status, number in result.counts.items())
    table = "the tables could not be written" if result.unwritten else f"every case: {folder / 'predictions.csv'}"
    return "\n".join([*lines, f"{counts}; {table}"])
