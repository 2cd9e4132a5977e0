"""`pipeline measure`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import words
from pipeline.cli.outcome import keeps
from pipeline.cli.progress import counted

if TYPE_CHECKING:
    from pipeline.bundle.measured import Measured

EXAMPLES = """Examples:

pipeline measure lesions references --out measured

pipeline measure nnunet_output Task04_Hippocampus --bundle hippocampus_mri_segmentation

pipeline measure lesions references --classes 1=core,2=penumbra --tolerance-mm 2

Exit status: 0 every reference is measured; 3 some are not, the others are; 1 none is; 2 nothing could be paired.
"""


def command(
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS", help="A folder of label maps, of any tool.")],
    references: Annotated[
        Path, typer.Argument(metavar="REFERENCES", help="A folder of label maps, or a dataset with labels.")
    ],
    bundle: Annotated[
        str | None, typer.Option(metavar="BUNDLE", help="Take the classes of this bundle, and its rules for labels.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="CLASSES",
            help="Classes to measure: 1=core,2=penumbra, or core,penumbra (default: what occurs, up to 128 values).",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the tables there.")] = None,
    tolerance_mm: Annotated[
        float, typer.Option(metavar="MM", min=0, help="Tolerance of the surface Dice (of sections, pixels).")
    ] = 1.0,
    lesion_overlap: Annotated[
        float,
        typer.Option(metavar="SHARE", min=0, max=1, help="Share of a lesion that finds it (0: a voxel is enough)."),
    ] = 0.0,
    pseudonyms: words.Pseudonyms = None,
) -> None:
    """Measure label maps against references, per case and class: overlap, surfaces in mm, lesions, volumes.

    Of sections, whose pixels have no known size, lengths are in pixels.

    Files are paired by their names (sub-01.nii.gz, sub-01_pred.nii.gz, sub-01/label.nii.gz) and must lie on one grid.
    A pair that can't be used does not stop the others; the exit status is then 3.
    """
    from pipeline.bundle.measure import measure
    from pipeline.io.destination import require_folder

    if out is not None:
        require_folder(out)
    with keeps("nothing is written; to redo it: the same command again"), counted("pairs") as count:
        measured = measure(
            predictions,
            references,
            bundle=bundle,
            classes=None if classes is None else words.classes(classes),
            out=out,
            tolerance_mm=tolerance_mm,
            lesion_overlap=lesion_overlap,
            pseudonyms=pseudonyms,
            progress=count,
        )
    typer.echo(closing_words(measured))
    if measured.exit_code:
        raise typer.Exit(measured.exit_code)


def closing_words(measured: Measured) -> str:
    """Why pairs were not measured, the table, and what it leaves out."""
    from pipeline.metrics import format_table

    lines = [
        f"{o.status}  {o.case_id}: {o.reason}" for o in measured.outcomes if o.reason and o.status != "no_prediction"
    ]
    if measured.summary is not None:
        lines.append(format_table(measured.summary))
    elif measured.counts["done"]:
        lines.append("No class occurs in any of these label maps.")
    missing = [o.case_id for o in measured.outcomes if o.status == "no_prediction"]
    for ids, lack in ((missing, "prediction"), (measured.extra, "reference")):
        if ids:
            more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
            lines.append(f"Without a {lack}, in no figure above: {', '.join(ids[:5])}{more}")
    counts = ", ".join(f"{number} {status.replace('_', ' ')}" for status, number in measured.counts.items())
    lines.append(f"{counts}; " + (f"tables: {measured.out}" if measured.out else "to keep the tables: --out DIR"))
    return "\n".join(lines)
