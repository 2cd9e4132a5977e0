"""`pipeline preview`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import words
from pipeline.errors import ConfigError

EXAMPLES = """Examples:

pipeline preview hippocampus_mri_segmentation --data hippocampus

pipeline preview stroke_perfusion_segmentation --data my_scans --case sub-07 --channel mtt

pipeline preview my_bundle --data my_scans train#steps#noise#std=0.3 train#steps#gamma=null

Exit status: 0 drawn; 2 what was given is not usable; 130 interrupted.
"""
FORMATS = (".png", ".jpg", ".jpeg", ".pdf", ".svg")


def command(
    bundle: words.Bundle,
    data: words.Dataset,
    changes: words.Overrides = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The picture: png, jpg, pdf or svg.")] = Path("preview.png"),
    case: Annotated[str | None, typer.Option(metavar="ID", help="Which case (default: the first one).")] = None,
    channel: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which channel is shown (default: the first one).")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="The same seed draws the same.")] = 0,
    layout: words.Layout = None,
    pseudonyms: words.Pseudonyms = None,
) -> None:
    """Draw what a training would see of one of your cases: each random change alone, and all of them together.

    Of 60 draws each, a weak, a typical and a strong one are shown (the 10th, 50th and 90th percentile), with the
    label's outline. Over deformed patches lies a grid; below them stands the smallest Jacobian determinant, by how much
    a place shrinks or grows: at 0 or below, the image would fold.
    """
    if out.suffix.lower() not in FORMATS:
        raise ConfigError(f"--out {out}", expected=f"a name that ends in {', '.join(FORMATS)}")
    changed = words.overrides(changes, layout, pseudonyms, (data, bundle))
    from pipeline.bundle.preview import preview_case
    from pipeline.io.destination import require_file
    from pipeline.report.augmentation import augmentation_figure

    require_file(out)
    shown = preview_case(bundle, data, case=case, channel=channel, seed=seed, overrides=changed)
    name, index = shown.channel
    augmentation_figure(shown.preview, index, f"{shown.bundle}: {name} of case {shown.case_id}, augmented", out)
    typer.echo(f"Drawn: {out}  (case {shown.case_id})")
